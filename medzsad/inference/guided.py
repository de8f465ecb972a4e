"""Anomaly maps of volumes that follow the scan: a guided filter.

A network's map is soft: coarser than the scan, and smoothed. Within a few millimetres what it marks is mostly
brighter or darker than what it does not, so a linear map of the intensities there, fitted to the map's
logits, draws the border where the scan has one (He, Sun, Tang, "Guided image filtering", TPAMI 2013; as in
"Fast guided filter", arXiv 1505.00996, the fit is made on a coarser grid and its coefficients interpolated).
Fitting also flattens: so the values are then brought back to those that the map had before, in the new order,
and a threshold marks as many voxels as it did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from medzsad.scans.prepared import box_around

COARSE_MM = 2.0  # of the grid that is fitted on
LOGIT = 6.0  # where the fit is made, map values beyond this logit on either side are taken for it
WIDEST, PER_LOGIT = 14, 256  # logits that values are counted at, and bins for each
THICK_MM, THICKER = 3.0, 1.4  # slices that are thick: from so many mm on, and so many times the finest side
FLAT = 0.01  # variance of deviations below which a place is too flat to guide anything
SLAB = 2_000_000  # voxels that are worked on at once


def guide_by_scan(
    anomaly_map: np.ndarray,
    deviations: Callable[[np.ndarray], np.ndarray],
    voxels: np.ndarray,
    inside: np.ndarray,
    spacing: tuple[float, float, float],
    radius_mm: float,
) -> None:
    """Let a map follow the scan, in place; it becomes 0 outside of ``inside``.

    Args:
        anomaly_map: float32 (X, Y, Z) in [0, 1].
        deviations: maps voxels (...) to float32 (...) in standard deviations of the volume.
        voxels: (X, Y, Z), the scan.
        inside: bool (X, Y, Z), what was predicted; nothing else has a say.
        spacing: in mm.
        radius_mm: half the side of the cube that is fitted in.
    """
    from scipy.ndimage import uniform_filter

    if not inside.any():
        anomaly_map[:] = 0
        return
    box = tuple(slice(*edges) for edges in box_around(inside))
    target, scan, there = anomaly_map[box], voxels[box], inside[box]
    steps = [max(1, int(COARSE_MM / mm + 1e-3)) for mm in spacing]
    coarse = tuple(-(-side // step) for side, step in zip(target.shape, steps, strict=True))
    sums = np.zeros((3, *coarse), np.float32)  # of voxels inside, their deviations and their logits
    before, after = _Counts(), _Counts()
    for rows, blocks in _slabs(target.shape, steps[0]):
        within, logits = there[rows].astype(np.float32), _logit(target[rows])
        before.add(logits[there[rows]])
        np.clip(logits, -LOGIT, LOGIT, out=logits)
        parts = (within, deviations(scan[rows]) * within, logits * within)
        for total, part in zip(sums, parts, strict=True):
            total[blocks] = _block_sums(part, steps)
    weight = sums[0] / np.prod(steps)
    guide, logits = sums[1:] / np.maximum(sums[0], 1)
    # Neighbours of thick slices show other tissue: there the fit is made in each slice.
    thick = [mm >= THICK_MM and mm >= THICKER * min(spacing) for mm in spacing]
    reach = [
        0 if slices else max(1, round(radius_mm / (step * mm)))
        for step, mm, slices in zip(steps, spacing, thick, strict=True)
    ]
    size = [2 * count + 1 for count in reach]

    share = np.maximum(uniform_filter(weight, size, mode="constant"), 1e-6)

    def near(values: np.ndarray) -> np.ndarray:
        means: np.ndarray = uniform_filter(values * weight, size, mode="constant")
        return means / share

    guide_mean, logit_mean = near(guide), near(logits)
    variance = np.maximum(near(guide * guide) - guide_mean**2, 0)
    slope = (near(guide * logits) - guide_mean * logit_mean) / (variance + FLAT)
    offset = near(logit_mean - slope * guide_mean)
    slope = near(slope)
    for rows, _ in _slabs(target.shape, steps[0]):
        gradient, level = (_stretched(values, steps, rows, target.shape) for values in (slope, offset))
        gradient *= deviations(scan[rows])
        gradient += level
        after.add(gradient[there[rows]])
        target[rows] = gradient
    for rows, _ in _slabs(target.shape, steps[0]):
        target[rows] = 1 / (1 + np.exp(-after.matched(target[rows], before)))
    anomaly_map *= inside


class _Counts:
    """How many logits lie below each of many."""

    def __init__(self) -> None:
        self.bins = np.zeros(2 * WIDEST * PER_LOGIT, np.int64)

    def add(self, logits: np.ndarray) -> None:
        place = (logits + np.float32(WIDEST)) * np.float32(PER_LOGIT)
        place = np.clip(place, 0, len(self.bins) - 1).astype(np.int32)
        self.bins += np.bincount(place.ravel(), minlength=len(self.bins))

    @property
    def below(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.bins)])

    def matched(self, logits: np.ndarray, wanted: _Counts) -> np.ndarray:
        """Return logits counted here as those of the same rank in ``wanted``."""
        edges = np.linspace(-WIDEST, WIDEST, len(self.bins) + 1)
        used = np.zeros(len(edges), dtype=bool)  # edges of bins that hold something, for the rest say nothing
        used[:-1] |= wanted.bins > 0
        used[1:] |= wanted.bins > 0
        table = np.interp(self.below, wanted.below[used], edges[used]).astype(np.float32)
        place = np.clip((logits + np.float32(WIDEST)) * np.float32(PER_LOGIT), 0, len(self.bins) - 1e-3)
        low = place.astype(np.int32)
        values: np.ndarray = table[low] + (table[low + 1] - table[low]) * (place - low)
        return values


def _logit(values: np.ndarray) -> np.ndarray:
    low = 1 / (1 + np.exp(WIDEST))
    clipped = np.clip(values, low, 1 - 1e-6)
    logits: np.ndarray = np.log(clipped / (1 - clipped))
    return logits


def _slabs(shape: tuple[int, ...], step: int) -> Iterator[tuple[slice, slice]]:
    """Return rows of a volume, a few at a time, and the blocks of ``step`` rows that they make."""
    blocks = max(1, SLAB // (shape[1] * shape[2] * step))
    for start in range(0, -(-shape[0] // step), blocks):
        stop = min(start + blocks, -(-shape[0] // step))
        yield slice(start * step, min(stop * step, shape[0])), slice(start, stop)


def _block_sums(values: np.ndarray, steps: list[int]) -> np.ndarray:
    for axis, step in enumerate(steps):
        if step > 1:
            values = np.add.reduceat(values, np.arange(0, values.shape[axis], step), axis=axis)
    return values


def _stretched(values: np.ndarray, steps: list[int], rows: slice, shape: tuple[int, ...]) -> np.ndarray:
    """Return coarse values (x, y, z) at the voxels of ``rows``, interpolated linearly."""
    for axis, (step, side) in enumerate(zip(steps, shape, strict=True)):
        wanted = range(side)[rows] if axis == 0 else range(side)
        if step == 1:
            values = values[rows] if axis == 0 else values
            continue
        place = np.clip((np.arange(wanted.start, wanted.stop) + 0.5) / step - 0.5, 0, values.shape[axis] - 1)
        low = place.astype(int)
        part = (place - low).astype(np.float32).reshape([-1 if other == axis else 1 for other in range(3)])
        upper = values.take(np.minimum(low + 1, values.shape[axis] - 1), axis=axis)
        values = values.take(low, axis=axis)
        values = values + (upper - values) * part
    return values.copy()
