"""Where three neighbouring slices of a volume lie, as a detector of slices is shown them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# Axes of a displayed slice, see medzsad.scans.slices: (stack, rows, columns); rows and columns descend.
AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
MARGIN = 0.02  # of medzsad.inference.slice_frame.SliceFrame


@dataclass(frozen=True)
class Cut:
    """Places of the pixels of three slices: own, below and above.

    Attributes:
        points: float32 (3 slices, K parts of a thick slice, 3 axes, S * S), in voxels.
        pixel_mm: side of a pixel.
        depths: of the three slices beside the own one, in mm; a neighbour beyond the end of the volume is the
            own slice again, as in :class:`medzsad.inference.slicewise.SliceWisePredictor`.
        to_pixel: maps voxel coordinates (3,) to (row, column) of the own slice, without the deformation.
        symmetric: whether the body is seen from the front or from above, where left and right are alike.
    """

    points: np.ndarray
    pixel_mm: float
    depths: np.ndarray
    to_pixel: np.ndarray
    centre: np.ndarray
    symmetric: bool


def smooth_field(r: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Smooth noise (S, S) of about unit variance with ``cells`` bumps along a side, float32."""
    knots = r.standard_normal((cells + 4, cells + 4)).astype(np.float32)
    rows, columns = (_spline(cells, size, offset) for offset in r.random(2))
    return 2.09 * (rows @ knots @ columns.T)


def _spline(cells: int, size: int, offset: float) -> np.ndarray:
    position = np.linspace(0, cells, size, dtype=np.float32)[:, None] + np.float32(offset + 1)
    distance = np.abs(position - np.arange(cells + 4, dtype=np.float32))
    near = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, near, np.clip(2 - distance, 0, None) ** 3 / 6)


def draw_cut(
    r: np.random.Generator,
    size: int,
    box: np.ndarray,
    core: np.ndarray,
    spacing: np.ndarray,
    *,
    planes: tuple[str, ...],
    shares: tuple[float, ...],
    turned: float = 1.0,
) -> Cut:
    """Draws a plane, a place in it, and how the body is turned, stretched and bent there.

    Args:
        r: random numbers.
        size: side of the slices in pixels.
        box: first and last voxel of the foreground, (3, 2).
        core: the same of the part of interest, where half of the slices are.
        spacing: of the voxels in mm, (3,).
        planes: that may be chosen, of :data:`AXES`.
        shares: how often.
        turned: factor of all angles.
    """
    plane = planes[int(r.choice(len(planes), p=np.array(shares) / sum(shares)))]
    stack, row_axis, column_axis = AXES[plane]
    extent = (box[:, 1] - box[:, 0] + 1) * spacing
    side = max(extent[row_axis], extent[column_axis]) * (1 + 2 * MARGIN)
    pixel = side / size * r.uniform(0.92, 1.12)
    centre = box.mean(1).astype(float)
    low, high = (core if r.random() < 0.6 else box)[stack]
    centre[stack] = r.uniform(low, high)
    # Directions of columns, rows and stack in mm, turned about all three axes.
    basis = np.zeros((3, 3))
    basis[row_axis, 0], basis[column_axis, 1], basis[stack, 2] = -1, -1, 1
    angles = turned * np.radians([r.normal() * 6, r.normal() * 6, r.normal() * 9])
    if r.random() < 0.05:
        angles[2] += r.choice([0.5, 1.0, 1.5]) * np.pi
    stretch = np.diag(np.append(np.exp(r.normal(0, 0.05, 2)), 1.0))
    flip = np.diag([1.0, -1.0 if r.random() < 0.5 else 1.0, 1.0])
    matrix = basis @ _turn(angles) @ stretch @ flip
    line = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * np.float32(pixel)
    rows, columns = np.repeat(line, size), np.tile(line, size)
    shift = 0.03 * side * r.normal(size=2)
    bend = r.uniform(0.5, 3.5) * np.stack([smooth_field(r, 4, size).ravel() for _ in range(3)])
    flat = matrix[:, :1] * (rows + shift[0]) + matrix[:, 1:2] * (columns + shift[1]) + bend
    thick = r.choice([1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0], p=[0.34, 0.14, 0.17, 0.1, 0.1, 0.1, 0.05])
    distance = max(1, round(NEIGHBOUR_MM / thick)) * thick
    parts = 1 if thick <= 1.5 else 2 if thick <= 3 else 3
    inner = thick * ((np.arange(parts) + 0.5) / parts - 0.5)
    depths = np.array([0, -distance, distance])
    at = centre[stack] + depths / spacing[stack]
    depths[(at < box[stack, 0]) | (at > box[stack, 1])] = 0
    depth = depths[:, None] + inner
    points = flat + depth[..., None, None] * matrix[:, 2:3]
    points = points / spacing[:, None] + centre[:, None]
    inverse = np.linalg.inv(matrix[[row_axis, column_axis]][:, :2])
    to_pixel = inverse @ np.eye(3)[[row_axis, column_axis]] * spacing / pixel
    middle = (size - 1) / 2 - shift / pixel
    return Cut(
        points.astype(np.float32), pixel, depths, np.column_stack([to_pixel, middle - to_pixel @ centre]),
        centre, plane != "sagittal",
    )  # fmt: skip


NEIGHBOUR_MM = 3.0


def _turn(angles: np.ndarray) -> np.ndarray:
    (a, b, c), (d, e, f) = np.cos(angles), np.sin(angles)
    first = np.array([[1, 0, 0], [0, a, -d], [0, d, a]])
    second = np.array([[b, 0, e], [0, 1, 0], [-e, 0, b]])
    third = np.array([[c, -f, 0], [f, c, 0], [0, 0, 1]])
    return third @ second @ first


def nearest(volume: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of the voxels nearest to ``points`` (..., 3, N); 0 outside of the volume."""
    index = np.rint(points).astype(np.int32)
    flat, inside = 0, True
    for axis, length in enumerate(volume.shape):
        part = index[..., axis, :]
        inside = inside & (part >= 0) & (part < length)
        flat = flat * length + np.clip(part, 0, length - 1)
    return np.where(inside, volume.ravel()[flat], 0)


def linear(volume: np.ndarray, points: np.ndarray, outside: float = 0.0) -> np.ndarray:
    """Values of ``volume`` at ``points`` (..., 3, N), linearly interpolated."""
    where = np.moveaxis(points, -2, 0)
    return ndimage.map_coordinates(volume, where.reshape(3, -1), order=1, cval=outside).reshape(
        where.shape[1:]
    )
