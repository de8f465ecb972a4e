"""Acquired slices to one regular grid with right angles, as NIfTI and its readers need it.

A stack of parallel slices is such a grid already when the slices are evenly spaced along their normal and lie
exactly above each other. Gantry tilt shifts each slice within its plane; missing slices and mixed spacing
leave gaps. Such stacks are resampled: the new planes are parallel to the acquired ones and reach exactly
from the first to the last of them. Nothing is extrapolated, but voxels between slices that lie far apart
are interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medzsad.errors import BadInput, certain
from medzsad.scans.affines import dicom_affine

# A slice may be off its place by this share of a slice distance, or of a pixel, without being resampled.
DEPTH_TOLERANCE = 0.05
SHIFT_TOLERANCE = 0.2
# The finest spacing that at least this share of the gaps has becomes the grid's; rarer ones are overlaps.
COMMON_SHARE = 0.2
MAX_GROWTH = 20


@dataclass(frozen=True)
class StackGrid:
    """The grid of a stack, and how its slices come to lie on it.

    Attributes:
        depths: float64 (N,), mm along the normal from the first slice, increasing.
        shifts: float64 (N, 2), pixels along columns and rows that each slice lies from the grid's corner,
            >= 0.
        planes: float64 (M,), depths of the grid's planes.
        shape: columns, rows and planes of the grid.
        affine: float64 (4, 4), voxel index to RAS+ mm.
        notes: what was found, for people.
        details: what was found, JSON-serialisable.
    """

    depths: np.ndarray
    shifts: np.ndarray
    planes: np.ndarray
    shape: tuple[int, int, int]
    affine: np.ndarray
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def resampled(self) -> bool:
        """Whether slices must be interpolated."""
        return bool(self.details["resampled"])


def stack_grid(
    positions: np.ndarray,
    axes: tuple[np.ndarray, np.ndarray],
    spacing: tuple[float, float],
    size: tuple[int, int],
    *,
    thickness: float | None = None,
    source: object = "the series",
) -> StackGrid:
    """Return the regular grid for slices that are parallel and sorted along their normal.

    Args:
        positions: (N, 3) LPS mm of each slice's first pixel, at distinct depths.
        axes: unit vectors along the columns' and the rows' index, LPS.
        spacing: mm between columns and between rows.
        size: columns and rows.
        thickness: mm, the spacing of a single slice.
        source: what to name in an error.

    Raises:
        BadInput: slices so far apart that a regular grid would be absurdly large.
    """
    normal = np.cross(*axes)
    offsets = positions - positions[0]
    depths = offsets @ normal
    shifts = np.stack([offsets @ axes[0] / spacing[0], offsets @ axes[1] / spacing[1]], axis=1)
    straight = bool(np.abs(shifts).max() <= SHIFT_TOLERANCE)
    shifts = np.zeros_like(shifts) if straight else shifts - shifts.min(axis=0)
    planes, spacing_note, spacing_details = _planes(depths, thickness, source)
    step = float(planes[1] - planes[0]) if len(planes) > 1 else float(thickness or 1.0)

    grown = np.ceil(shifts.max(axis=0) - 1e-3).astype(int)
    shape = (size[0] + int(grown[0]), size[1] + int(grown[1]), len(planes))
    corner = positions[0] - shifts[0, 0] * spacing[0] * axes[0] - shifts[0, 1] * spacing[1] * axes[1]
    affine = dicom_affine(corner, (*axes, normal), (*spacing, step))

    notes = []
    details: dict[str, Any] = {
        "resampled": not straight or bool(spacing_note),
        "acquired_slices": len(depths),
    }
    if not straight:
        note, details["shift_mm"], tilt = _shift_note(shifts * spacing, depths)
        notes.append(note)
        if tilt is not None:
            details["gantry_tilt_degrees"] = tilt
    if spacing_note:
        notes.append(spacing_note)
    details |= spacing_details
    if notes:
        gap = np.diff(depths).max() if len(depths) > 1 else 0.0
        sizes = " x ".join(f"{value:.2f}" for value in (*spacing, step))
        notes.append(
            f"Outputs lie on this grid, not on the acquired slices: {' x '.join(map(str, shape))} voxels "
            f"of {sizes} "
            f"mm, parallel to the slices; between slices (up to {gap:.1f} mm apart) values are interpolated."
        )
        details["grid"] = {
            "shape": list(shape),
            "spacing_mm": [round(value, 5) for value in (*spacing, step)],
            "interpolation": "linear",
            "acquired_depths_mm": [round(float(depth), 3) for depth in depths],
        }
    return StackGrid(depths, shifts, planes, shape, affine, tuple(notes), details)


def fill_grid(grid: StackGrid, slices: Iterable[np.ndarray], padding: float | None = None) -> np.ndarray:
    """Put slices on their grid, reading them one by one.

    Args:
        grid: from :func:`stack_grid`.
        slices: float32 (rows, columns) or (rows, columns, 3), in the order of ``grid.depths``.
        padding: what fills the grid where no slice was acquired; by default the smallest value.

    Returns:
        float32 (columns, rows, planes[, 3]).
    """
    buffer: np.ndarray | None = None
    below: np.ndarray | None = None
    for index, pixels in enumerate(slices):
        if buffer is None:
            buffer = np.empty(
                (grid.shape[2], grid.shape[1], grid.shape[0], *pixels.shape[2:]), dtype=np.float32
            )
        if not grid.resampled:
            buffer[index] = pixels
            continue
        here = _shifted(pixels, grid, index)
        if below is None:
            buffer[0] = here
        else:
            _blend(buffer, grid, index, below, here)
        below = here
    buffer = certain(buffer)  # there is a slice
    if grid.resampled and grid.shifts.any():
        _fill_unseen(buffer, padding)
    return buffer.swapaxes(0, 2)


def _planes(
    depths: np.ndarray, thickness: float | None, source: object
) -> tuple[np.ndarray, str, dict[str, Any]]:
    """Depths of the grid's planes, and what is wrong with the spacing of the slices, if anything."""
    count = len(depths)
    if count == 1:
        return np.zeros(1), "", {}
    even = np.linspace(0.0, depths[-1], count)
    if np.abs(depths - even).max() <= DEPTH_TOLERANCE * even[1]:
        return even, "", {}
    gaps = np.diff(depths)
    base = _common_spacing(gaps)
    steps = round(depths[-1] / base)
    if steps > MAX_GROWTH * count:
        raise BadInput(
            f"{source} has slices {gaps.min():.3g} to {gaps.max():.3g} mm apart, which make no volume; "
            "split the series, or correct its positions."
        )
    planes = np.linspace(0.0, depths[-1], max(steps, 1) + 1)
    multiples = np.maximum(np.round(gaps / base), 1)
    whole = np.abs(gaps / base - multiples) <= 0.15
    wide = np.flatnonzero(multiples > 1)
    if whole.all() and 0 < len(wide) <= len(gaps) / 3:
        missing = int((multiples[wide] - 1).sum())
        places = _listed([f"{i + 1} and {i + 2}" for i in wide])
        are, they = ("slice is", "it was") if missing == 1 else ("slices are", "they were")
        note = f"{missing} {are} missing (between slices {places} by position): {they} interpolated."
        return planes, note, {"missing_slices": missing, "missing_after_slice": [int(i) + 1 for i in wide]}
    note = (
        f"Slices are unevenly spaced ({gaps.min():.1f} to {gaps.max():.1f} mm): they were interpolated to "
        f"{planes[1]:.1f} mm."
    )
    return planes, note, {"uneven_spacing_mm": [round(float(gaps.min()), 3), round(float(gaps.max()), 3)]}


def _common_spacing(gaps: np.ndarray) -> float:
    """Return the smallest gap that is no rare exception."""
    for gap in np.sort(gaps):
        alike = gaps[np.abs(gaps - gap) <= 0.1 * gap]
        if len(alike) >= COMMON_SHARE * len(gaps):
            return float(np.median(alike))
    return float(np.median(gaps))


def _shift_note(shifts_mm: np.ndarray, depths: np.ndarray) -> tuple[str, float, float | None]:
    """Return what the shift within the planes is.

    Its note, its size in mm, and the tilt in degrees if it is one.
    """
    drift = shifts_mm - shifts_mm[0]
    size = float(np.linalg.norm(drift, axis=1).max())
    line = depths[:, None] / depths[-1] * drift[-1] if depths[-1] else np.zeros_like(drift)
    if np.abs(drift - line).max() <= 0.5 and depths[-1]:
        tilt = float(np.degrees(np.arctan2(np.linalg.norm(drift[-1]), depths[-1])))
        note = (
            f"The gantry was tilted by {tilt:.1f} degrees: the slices were shifted within their planes "
            f"(up to {size:.1f} mm) onto a grid with right angles."
        )
        return note, round(size, 3), round(tilt, 3)
    note = (
        f"Slices lie sideways of each other by up to {size:.1f} mm: they were shifted within their planes "
        "onto a grid with right angles."
    )
    return note, round(size, 3), None


def _shifted(pixels: np.ndarray, grid: StackGrid, index: int) -> np.ndarray:
    """Return the slice within the grid's outline, linearly interpolated; NaN where it saw nothing."""
    columns, rows = grid.shape[:2]
    if (rows, columns) == pixels.shape[:2]:
        return pixels
    for axis, size in ((0, rows), (1, columns)):
        shift = grid.shifts[index, 1 - axis]
        whole = int(np.floor(shift + 1e-3))
        fraction = max(0.0, shift - whole)
        length = pixels.shape[axis]
        moved = np.moveaxis(pixels, axis, 0)
        canvas = np.full((size, *moved.shape[1:]), np.nan, dtype=np.float32)
        canvas[whole : whole + length] = moved
        if fraction > 1e-3:  # the half-covered pixels at both ends keep the outermost value
            exact = moved.astype(np.float64)  # as NumPy 2 computes; NumPy 1 would round in between
            canvas[whole + 1 : whole + length] = (1 - fraction) * exact[1:] + fraction * exact[:-1]
            canvas[whole + length] = moved[-1]
        pixels = np.moveaxis(canvas, 0, axis)
    return pixels


def _blend(buffer: np.ndarray, grid: StackGrid, index: int, below: np.ndarray, here: np.ndarray) -> None:
    """Fill the planes between a slice and the one below it; where one saw nothing, the other counts."""
    start, end = grid.depths[index - 1], grid.depths[index]
    for k in np.flatnonzero((grid.planes > start + 1e-6) & (grid.planes <= end + 1e-6)):
        weight = np.float32((grid.planes[k] - start) / (end - start))
        if weight > 1 - DEPTH_TOLERANCE / 2:
            buffer[k] = here
        elif weight < DEPTH_TOLERANCE / 2:
            buffer[k] = below
        else:
            buffer[k] = below + weight * (here - below)
            if grid.shifts.any():
                unseen = np.isnan(buffer[k])
                buffer[k][unseen] = np.where(np.isnan(below), here, below)[unseen]


def _fill_unseen(buffer: np.ndarray, padding: float | None) -> None:
    if padding is None:
        padding = min(float(np.nanmin(plane)) for plane in buffer)
    for plane in buffer:
        plane[np.isnan(plane)] = padding


def _listed(items: list[str], most: int = 5) -> str:
    if len(items) > most:
        items = [*items[:most], f"{len(items) - most} more places"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])}, and {items[-1]}"
