"""Affines: DICOM's patient axes, the display of what has no place in a patient, and which affines can be."""

from __future__ import annotations

import numpy as np

# DICOM's patient axes point left, posterior and superior; NIfTI's (RAS+) right, anterior and superior.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Of a voxel's side: from electron microscopes to a whole body in one voxel. Others are damage.
SMALLEST_MM, LARGEST_MM = 1e-7, 1e4
FARTHEST_MM = 1e7
UNKNOWN_SIZE = "The voxel size is not known: 1 mm stands for it, so sizes in mm and mL mean nothing."
ASSUMED_AFFINE = (
    "No affine was given: voxels of 1 mm along right, anterior and superior are assumed; sizes in mm, and "
    "the names of directions, mean nothing."
)
"""The note on arrays and tensors whose affine is not known: the identity is assumed."""


def dicom_affine(
    origin: np.ndarray, axes: tuple[np.ndarray, np.ndarray, np.ndarray], spacing: tuple[float, float, float]
) -> np.ndarray:
    """Affine of a stack whose voxels are indexed by column, row and slice.

    Args:
        origin: (3,) centre of the first voxel, LPS mm (``ImagePositionPatient``).
        axes: unit vectors, LPS, that the column, row and slice index run along.
        spacing: mm between columns, rows and slices.

    Returns:
        float64 (4, 4), voxel index to RAS+ mm.
    """
    affine = np.eye(4)
    for column, (axis, step) in enumerate(zip(axes, spacing, strict=True)):
        affine[:3, column] = np.asarray(axis) * step
    affine[:3, 3] = origin
    return LPS_TO_RAS @ affine


def display_affine(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Affine of an image without position: X to the patient's left, Y to the feet, Z to the back.

    Args:
        spacing: mm between columns, rows and slices (or frames).
    """
    left, feet, back = np.array([1.0, 0, 0]), np.array([0, 0, -1.0]), np.array([0, 1.0, 0])
    return dicom_affine(np.zeros(3), (left, feet, back), spacing)


def maps_to_a_volume(affine: np.ndarray) -> bool:
    """Whether an affine in mm is finite, has no flat axis, and sizes that voxels can have."""
    if not np.isfinite(affine).all():
        return False
    sizes = np.array(voxel_sizes(affine))
    if sizes.min() < SMALLEST_MM or sizes.max() > LARGEST_MM:
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-6)


def voxel_sizes(affine: np.ndarray) -> list[float]:
    """Distance between voxel centres along each axis of an affine, in its unit."""
    return np.linalg.norm(affine[:3, :3], axis=0).tolist()
