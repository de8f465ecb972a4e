"""Files that hold a volume: which they are, and one way to read them all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medzsad.scans.itk_volumes import is_itk, is_segmentation, itk_grid, read_itk
from medzsad.scans.nifti import PAIR_SUFFIXES, is_mgh, is_nifti, nifti_grid, read_nifti
from medzsad.scans.scan import Scan

__all__ = ["is_listed_volume", "is_volume", "read_volume", "volume_grid"]


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
