"""Regions of interest: a mask on any grid, brought to that of a scan."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.scan import Scan

AUTO, WHOLE, BRAIN = "auto", "whole", "brain"
WORDS = (AUTO, WHOLE, BRAIN)


def region_of_interest(roi: str | os.PathLike[str] | np.ndarray, scan: Scan) -> np.ndarray:
    """Return a region on a scan's grid, bool (X, Y, Z).

    Args:
        roi: a file that :func:`medzsad.read_scan` reads, of any grid: what is not 0 in it, taken over by the
            nearest voxel; or an array on the scan's own grid.
        scan: the scan.

    Raises:
        BadInput: if the file cannot be read, has no place in the scan, or marks nothing there.
    """
    if isinstance(roi, np.ndarray):
        name, inside = "the region of interest", roi.astype(bool)
        if inside.shape != scan.shape:
            raise BadInput(
                f"{name} is an array {inside.shape} and the scan {scan.shape}; give the same grid."
            )
    else:
        name = os.fspath(roi)
        inside = _from_file(name, scan)
    if not inside.any():
        raise BadInput(f"{name} marks no voxel of {scan.name}; check that it belongs to this scan.")
    return inside


def _from_file(path: str, scan: Scan) -> np.ndarray:
    from scipy import ndimage

    from medzsad.scans.readers import read_scan

    try:
        mask = read_scan(path)
    except BadInput as error:
        raise BadInput(f"the region of interest cannot be read: {error}") from error
    voxels = mask.voxels.max(axis=3) if mask.is_colour else mask.voxels
    marked = np.nan_to_num(voxels) != 0
    if not (mask.has_geometry and scan.has_geometry):  # then only the same grid says where it is
        if marked.shape != scan.shape:
            raise BadInput(
                f"{path} has {_size(marked.shape)} voxels and {scan.name} {_size(scan.shape)}, and where "
                "they lie is not known; give a mask of the same size."
            )
        return marked
    matrix = np.linalg.inv(mask.affine) @ scan.affine
    if marked.shape == scan.shape and np.allclose(matrix, np.eye(4), atol=1e-3):
        return marked
    # mode "constant" would lose the outer half of the mask's border voxels.
    return ndimage.affine_transform(
        marked.astype(np.uint8), matrix, output_shape=scan.shape, order=0, mode="grid-constant"
    ).astype(bool)


def parse_roi(roi: Any) -> Any:
    """Return ``roi`` with its words in lower case; None is ``"auto"``.

    Raises:
        BadInput: if it names no file, and is none of ``"auto"``, ``"whole"`` and ``"brain"``.
    """
    if roi is None:
        return AUTO
    if isinstance(roi, np.ndarray):
        return roi
    text = os.fspath(roi)
    if text.strip().lower() in WORDS:
        return text.strip().lower()
    if not os.path.exists(os.path.expanduser(text)):
        raise BadInput(f"there is no region of interest {text!r}; use auto, brain, whole, or a mask's file.")
    return os.path.expanduser(text)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
