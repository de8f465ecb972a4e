"""The brain, from what a detector of slices marks as such, and whether that can be trusted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEAST_ML, MOST_ML = 500.0, 2200.0
ONE_PIECE = 0.9  # share of what is marked that lies in the largest component
COARSE_MM = 3.0
CLOSED = 3  # steps of COARSE_MM: a lesion at the surface is not called brain, and must not fall out
AROUND = 2  # the same, added around: meninges and blood on the brain belong to the region


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
    """Return the brain, and whether to trust it: one piece of 0.5 to 2.2 L inside the head.

    Args:
        seen: bool (X, Y, Z), canonical, where the detector sees brain.
        foreground: bool (X, Y, Z).
        spacing: in mm.
    """
    from scipy import ndimage

    steps = [max(1, round(COARSE_MM / mm)) for mm in spacing]
    coarse, counts = seen, np.float32(np.prod(steps))
    for axis, step in enumerate(steps):
        starts = np.arange(0, coarse.shape[axis], step)
        coarse = np.add.reduceat(coarse, starts, axis=axis, dtype=np.float32)
    pieces, count = ndimage.label(coarse >= 0.5 * counts)
    if not count:
        return BrainRegion(np.zeros_like(seen), 0.0, "none is seen")
    sizes = np.bincount(pieces.ravel())[1:]
    room = CLOSED + AROUND
    piece = np.pad(pieces == sizes.argmax() + 1, room)
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(piece, iterations=CLOSED))
    voxel_ml = float(np.prod(np.multiply(steps, spacing))) / 1000
    volume = float(closed.sum()) * voxel_ml
    wide = ndimage.binary_dilation(closed, iterations=AROUND)[(slice(room, -room),) * 3]
    for axis, step in enumerate(steps):
        wide = np.repeat(wide, step, axis=axis).take(range(seen.shape[axis]), axis=axis)
    doubts = {
        "it is in several pieces": sizes.max() < ONE_PIECE * sizes.sum(),
        f"{volume:.0f} mL is no brain's volume": not LEAST_ML <= volume <= MOST_ML,
    }
    doubt = next((text for text, holds in doubts.items() if holds), "")
    return BrainRegion(wide & foreground, volume, doubt)
