"""Results as BIDS derivatives: their names, their sidecars, and the description of the data set they make.

Names and fields follow https://bids-specification.readthedocs.io/en/v1.10.0/derivatives/imaging.html.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medzsad import __version__
from medzsad.errors import BadInput, OutputNotWritable
from medzsad.integrations.bids.dataset import DESCRIPTION, BidsImage, check_dataset
from medzsad.results.report import to_json
from medzsad.scans.own_results import mark_of
from medzsad.storage.atomic import replacing
from medzsad.storage.text_files import read_json

BIDS_VERSION = "1.10.0"
PIPELINE = "medzsad"
MAP, MASK = "probseg.nii.gz", "mask.nii.gz"
MAP_SIDECAR, MASK_SIDECAR = "probseg.json", "mask.json"
# Files of a prediction by kind, and how their names end here.
ENDINGS = {"anomaly": MAP, "mask": MASK}
FIGURES = {"overlay": "probseg.png", "html": "report.html"}
ALL = (
    MAP_SIDECAR,
    MASK_SIDECAR,
    *ENDINGS.values(),
    *FIGURES.values(),
)  # first that without which none counts
WORK = ".work"  # hidden, so that validators pass it over
IGNORED = "figures\nfigures/\ngroup_*\n"
UNITS = "arbitrary"
README = """# Anomaly maps of medzsad

BIDS derivatives: for each image an anomaly map (`desc-anomaly_probseg`, 0 to 1, on the image's own grid), the
mask of its candidates (`desc-anomaly_mask`), score, threshold, units and settings in sidecars, and a picture.
A score ranks images. It is no probability of a disease.

Research use only; not a medical device and not for diagnosis.
"""


def path_of(image: BidsImage, ending: str) -> Path:
    """Return where a derivative of an image lies, from the root of the derivatives.

    >>> path_of(BidsImage(Path(), Path("sub-01/anat/sub-01_run-1_FLAIR.nii.gz")), MAP).as_posix()
    'sub-01/anat/sub-01_run-1_space-FLAIR_desc-anomaly_probseg.nii.gz'

    The space is the image's own; its suffix tells the results of a T1w and a FLAIR apart.
    """
    chunk = [entity for entity in image.entities if entity.startswith("chunk-")]  # stands behind the space
    before = [entity for entity in image.entities if entity not in chunk]
    name = "_".join((*before, f"space-{image.suffix}", *chunk, "desc-anomaly", ending))
    if ending in FIGURES.values():
        return Path(image.participant, "figures", name)
    return image.relative.parent / name


def check_place(root: Path, out: Path) -> None:
    """Refuse a folder for derivatives that is the data set itself, or lies in it but not in ``derivatives/``.

    Raises:
        BadInput: if it is, or holds another data set.
    """
    inside = out.resolve().relative_to(root.resolve()).parts if _is_inside(out, root) else None
    if inside is not None and inside[:1] != ("derivatives",):
        raise BadInput(
            f"{out} lies in the data set itself; use {root / 'derivatives' / PIPELINE} or a folder beside it."
        )
    path = out / DESCRIPTION
    if path.exists() and _pipeline_of(path) != PIPELINE:
        raise BadInput(f"{out} holds another data set ({DESCRIPTION}); choose another folder.")


def describe(root: Path, out: Path) -> None:
    """Write what BIDS demands of the root of derivatives: its description, and what validators pass over.

    Keys that somebody added to the description, such as Authors, stay.

    Raises:
        OutputNotWritable: if it cannot be written.
    """
    try:
        path = out / DESCRIPTION
        added = read_json(path) if path.exists() else {}
        _write_text(path, to_json(added | _description(check_dataset(root), root, out)))
        for name, text in ((".bidsignore", IGNORED), ("README.md", README)):
            if not (out / name).exists():
                _write_text(out / name, text)
    except OSError as error:
        raise OutputNotWritable(
            f"{out}: cannot write results there ({error.strerror or error}); choose another folder"
        ) from error


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _pipeline_of(path: Path) -> str | None:
    description = read_json(path)
    try:
        return description["GeneratedBy"][0]["Name"]
    except (KeyError, IndexError, TypeError):
        return None


def _description(source: Mapping[str, Any], root: Path, out: Path) -> dict[str, Any]:
    """Return the description of derivatives.

    Where a data set has a DOI, that is its link; else the way to it from here, which tools follow.
    """
    doi = source.get("DatasetDOI") or None
    link = str(doi or Path(os.path.relpath(root.resolve(), out.resolve())).as_posix())
    return {
        "Name": f"medzsad: anomaly maps of {source['Name']}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": PIPELINE,
                "Version": __version__,
                "Description": "Zero-shot anomaly detection. Research use only; not for diagnosis.",
            }
        ],
        "SourceDatasets": [{"URL": link} | ({"DOI": link} if doi else {})],
        "DatasetLinks": {"raw": link},
    }


def publish(
    image: BidsImage, report: Mapping[str, Any], files: Mapping[str, Path], out: Path
) -> dict[str, Path]:
    """Put the files of a prediction where BIDS has them, with their sidecars; the map's comes last.

    What lies there of the very same prediction is left alone.

    Args:
        image: that was predicted.
        report: of the prediction, see docs/outputs.md.
        files: of the prediction, by kind.
        out: root of the derivatives.

    Returns:
        The files, by kind; ``json`` is the map's sidecar.

    Raises:
        OutputNotWritable: if one cannot be written, or would replace a file that is not medzsad's.
    """
    kinds = {kind: ending for kind, ending in (ENDINGS | FIGURES).items() if kind in files}
    targets = {kind: out / path_of(image, ending) for kind, ending in kinds.items()}
    targets |= {"mask_json": out / path_of(image, MASK_SIDECAR), "json": out / path_of(image, MAP_SIDECAR)}
    if all(path.is_file() for path in targets.values()) and _report_in(targets["json"]) == report:
        return targets
    present = [path for ending in ALL if (path := out / path_of(image, ending)).exists()]
    for path in present:
        if mark_of(path) is None:
            raise OutputNotWritable(f"{path} was not written by medzsad and would be replaced; move it away")
    try:
        for path in present:
            path.unlink()
        for kind in kinds:
            _link(files[kind], targets[kind])
        _write_text(targets["mask_json"], to_json(mask_sidecar(image, report)))
        _write_text(targets["json"], to_json(map_sidecar(image, report)))
    except OSError as error:
        raise OutputNotWritable(
            f"{out}: cannot write the results ({error.strerror or error}); choose another folder"
        ) from error
    return targets


def _report_in(sidecar: Path) -> object:
    try:
        content = read_json(sidecar)
    except BadInput:
        return None
    return content.get("Report") if isinstance(content, dict) else None


def map_sidecar(image: BidsImage, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the sidecar of a map says: BIDS's fields, and the report of docs/outputs.md."""
    return {
        "Result": report["result"],  # the mark by which medzsad knows its own files
        "Description": "Anomaly map: 1 is most anomalous; exactly 0 outside the region that was looked at.",
        "Sources": [image.uri],
        "SpatialReference": image.uri,
        "Units": UNITS,
        "Minimum": 0,
        "Maximum": 1,
        "Score": report["score"],
        "Threshold": report["threshold"]["value"],
        "ThresholdRule": report["threshold"]["rule"],
        "Report": dict(report),
    }


def mask_sidecar(image: BidsImage, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the sidecar of a mask says."""
    return {
        "Result": report["result"],
        "Description": "Anomaly candidates: where the map reaches the threshold, without hidden candidates.",
        "Type": "Lesion",
        "Manual": False,
        "Sources": [image.uri, f"bids::{path_of(image, MAP).as_posix()}"],
        "SpatialReference": image.uri,
        "LabelMap": report["mask_labels"],
        "Threshold": report["threshold"]["value"],
        "ThresholdRule": report["threshold"]["rule"],
        "ThresholdUnits": UNITS,
        "Candidates": len(report["lesions"]),
        "VolumeUnits": "mL",
        "Volumes": [lesion["volume_ml"] for lesion in report["lesions"]],
    }


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, which takes no room; a copy where that cannot be."""
    with replacing(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
