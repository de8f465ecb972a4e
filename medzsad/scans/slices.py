"""Slicing planes: any voxel order and oblique grid seen as the same anatomical slices, and back.

Arrays are first viewed in *canonical* axes: the axis permutation and flips that bring the voxel axes closest
to patient right, anterior, superior (RAS+). All 48 axis orientations of one volume have the same canonical
view, so whatever is computed there is independent of how a file is stored. No interpolation is involved.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from medzsad.scans.scan import Scan

# Spacings closer than this count as equal: rounding in headers is not an acquisition plane.
ISOTROPY_TOLERANCE = 0.01


class Plane(StrEnum):
    """Slicing planes a user may ask for."""

    AUTO = "auto"
    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    ALL = "all"


# Canonical axis that a plane's slices are stacked along, and what lies at the left, right, top and bottom of
# the displayed slice: the radiological convention (patient right on the left; sagittal slices face left).
STACK_AXIS = {Plane.SAGITTAL: 0, Plane.CORONAL: 1, Plane.AXIAL: 2}
PLANE_OF_AXIS = {axis: plane for plane, axis in STACK_AXIS.items()}
EDGES = {Plane.AXIAL: "RLAP", Plane.CORONAL: "RLSI", Plane.SAGITTAL: "APSI"}


def _rounded(spacing: float) -> float:
    return round(spacing, 5) if spacing >= 1 else float(f"{spacing:.5g}")


@dataclass(frozen=True)
class CanonicalView:
    """The bridge between a grid's own voxel axes and the canonical ones.

    Attributes:
        order: native axis behind each canonical axis.
        flips: whether each canonical axis runs against its native axis.
        shape: canonical shape.
        spacing: canonical spacing in mm, rounded (to 1e-5 mm, or to 5 digits of less than 1 mm) so that equal
            grids slice equally.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, scan: Scan) -> CanonicalView:
        """Return the canonical view of a scan's grid."""
        import nibabel

        orientation = nibabel.io_orientation(scan.affine)
        order, flips = [0, 0, 0], [False, False, False]
        for native in range(3):
            canonical = int(orientation[native, 0])
            order[canonical] = native
            flips[canonical] = bool(orientation[native, 1] < 0)
        right, front, top = order
        shape, spacing = scan.shape, [_rounded(one) for one in scan.spacing]
        return cls(
            (right, front, top),
            (flips[0], flips[1], flips[2]),
            (shape[right], shape[front], shape[top]),
            (spacing[right], spacing[front], spacing[top]),
        )

    def to_canonical(self, array: np.ndarray) -> np.ndarray:
        """Return a view of ``array`` (X, Y, Z[, C]) in canonical axes; nothing is copied."""
        tail = tuple(range(3, array.ndim))
        view = array.transpose(*self.order, *tail)
        return view[tuple(slice(None, None, -1 if flip else None) for flip in self.flips)]

    def to_native(self, array: np.ndarray) -> np.ndarray:
        """Return the inverse of :meth:`to_canonical`."""
        tail = tuple(range(3, array.ndim))
        view = array[tuple(slice(None, None, -1 if flip else None) for flip in self.flips)]
        inverse = np.argsort(self.order)
        return view.transpose(*(int(axis) for axis in inverse), *tail)

    def native_index(self, axis: int, index: int) -> tuple[int, int]:
        """Native axis and voxel index of the canonical slice ``index`` along canonical ``axis``."""
        return self.order[axis], self.shape[axis] - 1 - index if self.flips[axis] else index


def planes_to_slice(plane: Plane | str, view: CanonicalView) -> tuple[Plane, ...]:
    """Return the plane or planes to slice along.

    ``auto`` is the :func:`acquisition_plane`, ``all`` the three anatomical planes.
    """
    plane = Plane(plane)
    if plane is Plane.ALL:
        return (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL)
    return (acquisition_plane(view) if plane is Plane.AUTO else plane,)


def acquisition_plane(view: CanonicalView) -> Plane:
    """Return the plane perpendicular to the largest spacing, or to an axis of a single voxel.

    Of a volume with equal spacings, axial.
    """
    single = [axis for axis in range(3) if view.shape[axis] == 1]
    if len(single) == 1:
        return PLANE_OF_AXIS[single[0]]
    largest = max(view.spacing)
    thick = [axis for axis in range(3) if view.spacing[axis] >= largest * (1 - ISOTROPY_TOLERANCE)]
    return PLANE_OF_AXIS[thick[0]] if len(thick) == 1 else Plane.AXIAL


def slice_image(volume: np.ndarray, plane: Plane, index: int) -> np.ndarray:
    """One slice as it is displayed: rows top to bottom, columns left to right, radiological convention.

    Args:
        volume: canonical (X, Y, Z[, C]).
        plane: axial, coronal or sagittal.
        index: canonical index along the plane's stacking axis.

    Returns:
        A view, (rows, columns[, C]).
    """
    axis = STACK_AXIS[plane]
    image = volume[(slice(None),) * axis + (index,)]
    return image.swapaxes(0, 1)[::-1, ::-1]


def pixel_spacing(spacing: tuple[float, float, float], plane: Plane) -> tuple[float, float]:
    """Distance in mm between rows, and between columns, of a displayed slice.

    Args:
        spacing: along the canonical axes, in mm.
        plane: axial, coronal or sagittal.
    """
    columns, rows = (spacing[axis] for axis in other_axes(STACK_AXIS[plane]))
    return rows, columns


def other_axes(axis: int) -> tuple[int, int]:
    """Return the two axes of a volume that ``axis`` is not, in their order."""
    first, second = (other for other in range(3) if other != axis)
    return first, second
