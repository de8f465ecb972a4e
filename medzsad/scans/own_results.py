"""Results of medzsad among files: they are no scans, and only they may be replaced."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path

from medzsad.errors import BadInput

# Every result file has this in its first bytes: in NIfTI's description, a PNG's text, DICOM's preamble, ...
MARK = re.compile(rb"medzsad result ?([0-9a-f]*): ([a-z ]+)")
HEAD = 1024
SCAN = "scan as read"
# What may follow a scan's name. Results of older versions have no mark: these names and the report beside
# them tell them.
ENDINGS = (
    ".json", "_anomaly.nii.gz", "_mask.nii.gz", "_scan.nii.gz", "_brain.nii.gz", "_anomaly.png", "_mask.png",
    "_overlay.png", "_slices", "_report.html", "_mask.seg.nrrd", "_seg.dcm", "_seg_fractional.dcm", "_pm.dcm",
    "_sr.dcm", "_sc",
)  # fmt: skip
FOLDERS = ("_slices", "_sc")


def mark(what: str, fingerprint: str = "") -> str:
    """Return the mark of a result.

    >>> mark("anomaly map", "0a1b2c3d4e5f")
    'medzsad result 0a1b2c3d4e5f: anomaly map'

    Args:
        what: the kind of result, in small letters.
        fingerprint: of the prediction; results of different predictions are never left side by side.
    """
    return f"medzsad result {fingerprint}: {what}".replace("  ", " ").replace(" :", ":")


def is_result(path: Path) -> bool:
    """Whether a file, or a folder of pictures, has a result's mark, or a result's name beside a report."""
    return mark_of(path) is not None or _is_beside_report(path, of_any_version=True)


def may_be_replaced(path: Path) -> bool:
    """Whether a file, or a folder, is as medzsad wrote it.

    What has a result's name but no mark is a result of an older version, or one that its owner corrected:
    beside a report that has a mark itself, it is the latter.
    """
    return (
        mark_of(path) is not None
        or _is_beside_report(path, of_any_version=False)
        or (path.is_dir() and _has_pictures_only(path))
    )


def _has_pictures_only(folder: Path) -> bool:
    """Whether all in a folder is named as medzsad names it; numbered DICOM files are, if one has a mark."""
    if folder.name.endswith("_slices"):
        pattern = re.escape(folder.name.removesuffix("s")) + r"_.*\.png"
        return all(re.fullmatch(pattern, file.name) for file in folder.iterdir())
    files = list(folder.iterdir()) if folder.name.endswith("_sc") else []
    return all(re.fullmatch(r"\d{4}\.dcm", file.name) for file in files) and any(map(mark_of, files))


def mark_of(path: Path) -> tuple[str, str] | None:
    """Return the fingerprint of the prediction (may be empty) and what it is; None if there is no mark.

    A folder is a result if all of its files are.
    """
    if path.is_dir():
        if not path.name.endswith(FOLDERS):
            return None
        marks = [mark_of(file) for file in sorted(path.iterdir()) if file.is_file()]
        return marks[0] if marks and None not in marks else None
    try:
        with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
            found = MARK.search(file.read(HEAD))
    except (OSError, EOFError, zlib.error):
        return None
    return (found[1].decode(), found[2].decode()) if found else None


def _is_beside_report(path: Path, *, of_any_version: bool) -> bool:
    """Whether a path is called like a result, beside a report of that name; or beside one without a mark."""
    for ending in ENDINGS:
        if path.name.endswith(ending):
            name = path.name[: -len(ending)]
            report = path.parent / f"{name}.json"
            if name and _is_report(report) and (of_any_version or mark_of(report) is None):
                return True
    return False


def _is_report(path: Path) -> bool:
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(report, dict) and "mask_labels" in report and "slices" in report


def refuse_result(path: Path) -> None:
    """Refuse a result as a scan; one that is the scan as it was read can be predicted itself.

    Raises:
        BadInput: the path is a map, a mask or a picture of medzsad.
    """
    if path.is_file() and is_result(path):
        found = mark_of(path)
        if found[1] != SCAN if found else not path.name.endswith("_scan.nii.gz"):
            raise BadInput(f"{path} is a result of medzsad, not a scan; give the scan.")
