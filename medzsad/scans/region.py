"""Regions of interest: a mask on any grid brought to that of a scan, or the brain as a detector sees it."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.prepared import box_around
from medzsad.scans.scan import Scan

AUTO, WHOLE, BRAIN = "auto", "whole", "brain"
WORDS = (AUTO, WHOLE, BRAIN)
# Of a brain that is trusted.
LEAST_ML, MOST_ML = 500.0, 2200.0
WIDEST_MM = 215.0  # to the side and to the front: a brain has 150 and 190, what is wider lies in a trunk
ONE_PIECE = 0.9  # share of what is marked that lies in the largest component
COARSE_MM = 3.0
CLOSED = 3  # steps of COARSE_MM: a lesion at the surface is not called brain, and must not fall out
AROUND = 2  # the same, added around: meninges and blood on the brain belong to the region


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


class BrainRegion(NamedTuple):
    """The brain of a volume.

    Attributes:
        mask: bool (X, Y, Z), canonical: the largest component, closed, its holes filled, and
            ``AROUND * COARSE_MM`` mm around it, within the foreground.
        volume_ml: of the brain itself, closed and filled.
        doubt: why it is not trusted, in a few words; empty if it is.
    """

    mask: np.ndarray
    volume_ml: float
    doubt: str


def brain_region(
    seen: np.ndarray, foreground: np.ndarray, spacing: tuple[float, float, float]
) -> BrainRegion:
    """Return the brain, and whether to trust it: one piece of 0.5 to 2.2 L that is no wider than a head.

    Args:
        seen: bool (X, Y, Z), canonical, where the detector sees brain.
        foreground: bool (X, Y, Z).
        spacing: in mm.
    """
    from scipy import ndimage

    steps = [max(1, round(COARSE_MM / mm)) for mm in spacing]
    coarse = seen.view(np.uint8)  # summing bool would first copy the volume as numbers
    for axis, step in enumerate(steps):
        starts = np.arange(0, coarse.shape[axis], step)
        coarse = np.add.reduceat(
            coarse, starts, axis=axis, dtype=np.int32 if axis or step > 255 else np.uint8
        )
    pieces, count = ndimage.label(coarse >= 0.5 * np.prod(steps))
    if not count:
        return BrainRegion(np.zeros_like(seen), 0.0, "none is seen")
    sizes = np.bincount(pieces.ravel())[1:]
    room = CLOSED + AROUND
    piece = np.pad(pieces == sizes.argmax() + 1, room)
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(piece, iterations=CLOSED))
    voxel_ml = float(np.prod(np.multiply(steps, spacing))) / 1000
    volume = float(closed.sum()) * voxel_ml
    edges = box_around(closed)
    wide_mm = max((edges[axis][1] - edges[axis][0]) * steps[axis] * spacing[axis] for axis in (0, 1))
    wide = ndimage.binary_dilation(closed, iterations=AROUND)[(slice(room, -room),) * 3]
    for axis, step in enumerate(steps):
        wide = np.repeat(wide, step, axis=axis).take(range(seen.shape[axis]), axis=axis)
    doubts = {
        "it is in several pieces": sizes.max() < ONE_PIECE * sizes.sum(),
        f"{volume:.0f} mL is no brain's volume": not LEAST_ML <= volume <= MOST_ML,
        f"{wide_mm:.0f} mm is no brain's width": wide_mm > WIDEST_MM,
    }
    doubt = next((text for text, holds in doubts.items() if holds), "")
    return BrainRegion(wide & foreground, volume, doubt)
