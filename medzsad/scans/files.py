"""Files that hold a volume: which they are, one way to read them all, and what else lies in a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.itk_volumes import is_itk, is_segmentation, itk_grid, read_itk
from medzsad.scans.nifti import PAIR_SUFFIXES, is_mgh, is_nifti, nifti_grid, read_nifti
from medzsad.scans.scan import Scan


def existing(path: str | os.PathLike[str]) -> Path:
    """Return the path of a scan, which may be a link that leads nowhere.

    Raises:
        BadInput: if it is empty, or nothing is there.
    """
    if not os.fspath(path):  # pathlib takes it for the current folder
        raise BadInput("the path of the scan is empty; name a file or a folder.")
    if not os.path.lexists(path):  # false for names that nothing can have
        raise BadInput(f"{path} does not exist; check the path.")
    return Path(path)


def walk(folder: Path) -> Iterator[tuple[Path, list[Path], dict[Path, str]]]:
    """Yield each folder from ``folder`` down, with its files by name, and what cannot be read in it and why.

    Hidden names, devices and pipes are skipped. Links to folders are followed, but no folder is visited
    twice: not one that contains itself by a link, nor one that two links lead to.

    Raises:
        BadInput: ``folder`` may not be opened.
    """
    visited: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            status = parent.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            entries = sorted(path for path in parent.iterdir() if not path.name.startswith("."))
        except OSError as error:
            raise BadInput(f"{parent} cannot be opened ({error.strerror}); check its permissions.") from error
        faults = {path: fault for path in entries if (fault := why_unreadable(path))}
        yield parent, [path for path in entries if path not in faults and path.is_file()], faults
        folders = [path for path in entries if path not in faults and path.is_dir()]
        # Links come last, so that what they lead to keeps its own name where it lies here, too.
        waiting += sorted(folders, key=lambda path: (path.is_symlink(), path), reverse=True)


def why_unreadable(path: Path) -> str | None:
    """Return what is wrong with a file or folder before its content is looked at, in words; else None."""
    try:
        status = path.stat()
    except OSError:  # a link in a circle, too
        return "a link that leads nowhere" if path.is_symlink() else "a file that cannot be opened"
    if stat.S_ISDIR(status.st_mode):
        return None if os.access(path, os.R_OK | os.X_OK) else "a folder that may not be opened"
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size == 0:
        return "an empty file"
    return None if os.access(path, os.R_OK) else "a file that may not be read"


def is_volume(path: Path) -> bool:
    """Whether the file name is that of a NIfTI, MGH, NRRD or MetaImage file."""
    return is_nifti(path) or is_mgh(path) or is_itk(path)


def is_listed_volume(path: Path) -> bool:
    """Whether a file of a folder stands for a volume: of a pair the header does, a segmentation does not."""
    name = path.name.lower()
    if name.endswith(PAIR_SUFFIXES):
        stem, _, suffix = path.name.removesuffix(".gz").rpartition(".")
        other = {"hdr": ".img", "HDR": ".IMG"}.get(suffix)
        return bool(other) and any((path.parent / f"{stem}{other}{end}").is_file() for end in ("", ".gz"))
    return is_volume(path) and not is_segmentation(path)


def read_volume(path: Path, *, volume: int | None = None) -> Scan:
    """Read a volume.

    Args:
        path: for which :func:`is_volume` holds.
        volume: which volume of a 4D file, counted from 0.

    Raises:
        BadInput: see :func:`~medzsad.scans.nifti.read_nifti` and :func:`~medzsad.scans.itk_volumes.read_itk`.
    """
    return read_itk(path, volume=volume) if is_itk(path) else read_nifti(path, volume=volume)


def volume_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Return a volume's shape and its affine in RAS+ mm, from the header alone.

    Raises:
        BadInput: as for :func:`read_volume`.
    """
    return itk_grid(path) if is_itk(path) else nifti_grid(path)
