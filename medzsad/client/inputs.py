"""Which files on this machine are which scan, by their names and first bytes: nothing is decoded here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from medzsad.client.connection import Part
from medzsad.errors import BadInput
from medzsad.scans.names import FILE_ENDINGS, unique_names
from medzsad.scans.own_results import is_result, refuse_result

DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
_VOXELS = (".img", ".img.gz")  # of a pair, the file that its header stands for
_MAGIC_AT, _MAGIC = 128, b"DICM"


@dataclass(frozen=True)
class ScanFiles:
    """A scan: the files to send.

    Attributes:
        name: of its results.
        source: as the user gave it, or the file or folder in a folder that was given.
        parts: its files, under names that say nothing but their format.
    """

    name: str
    source: Path
    parts: tuple[Part, ...]

    def with_roi(self, mask: Path) -> ScanFiles:
        """Return the scan with the mask of a region of interest."""
        ending = next((end for end in FILE_ENDINGS if mask.name.lower().endswith(end)), "")
        return replace(self, parts=(*self.parts, Part(f"mask-000001{ending}", mask, "roi")))

    def told(self, text: str) -> str:
        """Return a server's message with the files' names here."""
        for part in self.parts:
            text = text.replace(part.name, str(part.path))
        return re.sub(r"\bthe upload\b", lambda _: str(self.source), text)


def scan_files(inputs: Iterable[str | os.PathLike[str]]) -> tuple[list[ScanFiles], list[tuple[str, str]]]:
    """Return the scans of files and folders, and the inputs that hold none, with the reason.

    A file is a scan. Of a folder and its subfolders each volume and image file is one, and the DICOM files of
    a folder are one together; hidden files and medzsad's own results are left out.
    """
    found: dict[Path, list[Path]] = {}
    failed: list[tuple[str, str]] = []
    for given in inputs:
        try:
            for source, files in _scans_at(Path(given)):
                found.setdefault(source, files)
        except BadInput as error:
            failed.append((os.fspath(given), str(error)))
    names = unique_names(list(found))
    return [
        ScanFiles(name, source, _parts(files))
        for name, (source, files) in zip(names, found.items(), strict=True)
    ], failed


def _scans_at(path: Path) -> list[tuple[Path, list[Path]]]:
    if not os.path.lexists(path):
        raise BadInput(f"{path} does not exist; check the path.")
    if not path.is_dir():
        if not path.is_file():
            raise BadInput(f"{path}: a pipe, socket or device, not a file; give a file.")
        refuse_result(path)
        return [(path, [path, *_voxels_of(path)])]
    scans: list[tuple[Path, list[Path]]] = []
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not is_result(here / name)
        )
        files = [here / name for name in sorted(names) if not name.startswith(".")]
        files = [file for file in files if file.is_file() and not is_result(file)]
        dicom = [file for file in files if _is_dicom(file)]
        named = [file for file in files if file not in dicom and _is_listed(file)]
        scans += [(file, [file, *_voxels_of(file)]) for file in named]
        if dicom:
            scans.append((here, dicom))
    if not scans:
        raise BadInput(f"{path} holds no scans; give a file or a folder with scans.")
    return scans


def _is_listed(file: Path) -> bool:
    name = file.name.lower()
    return name.endswith(FILE_ENDINGS) and not name.endswith((*_VOXELS, ".seg.nrrd"))


def _is_dicom(file: Path) -> bool:
    name = file.name.lower()
    if name.endswith(DICOM_ENDINGS):
        return True
    if name.endswith(FILE_ENDINGS) or name == "dicomdir":
        return False
    try:
        with file.open("rb") as opened:
            opened.seek(_MAGIC_AT)
            return opened.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _voxels_of(file: Path) -> list[Path]:
    """Return the other file of a pair."""
    name = file.name.lower()
    if not name.endswith((".hdr", ".hdr.gz")):
        return []
    stem = file.name[: -len(".hdr.gz" if name.endswith(".gz") else ".hdr")]
    beside = (file.with_name(stem + end) for end in (".img", ".IMG", ".img.gz", ".IMG.gz"))
    return [path for path in beside if path.is_file()][:1]


def _parts(files: list[Path]) -> tuple[Part, ...]:
    parts = []
    pair = len(files) == 2 and files[1].name.lower().endswith(_VOXELS)
    for number, file in enumerate(files, 1):
        name = file.name.lower()
        ending = next((end for end in FILE_ENDINGS if name.endswith(end)), "")
        parts.append(Part(f"file-{1 if pair else number:06d}{ending or _odd_ending(name)}", file))
    return tuple(parts)


def _odd_ending(name: str) -> str:
    """Return the ending of a file of an unknown kind, if it is one that says nothing else."""
    ending = Path(name).suffix
    return ending if re.fullmatch(r"\.[a-z]{1,4}", ending) else ""
