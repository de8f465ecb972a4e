"""Lesion candidates: the connected components of a thresholded anomaly map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lesion:
    """One lesion candidate.

    Attributes:
        volume_ml: volume in mL (for 2D images without geometry None).
        voxels: size in voxels.
        center_mm: centre of mass in world mm, RAS+.
        center_voxel: voxel index nearest to the centre of mass, in the scan's own axes, from 0.
        bounding_box: first and last voxel index along each axis, inclusive.
        maximum, mean: of the anomaly map inside.
    """

    volume_ml: float | None
    voxels: int
    center_mm: tuple[float, float, float]
    center_voxel: tuple[int, int, int]
    bounding_box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    maximum: float
    mean: float


def find_lesions(
    anomaly_map: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    *,
    min_volume_mm3: float = 10.0,
    has_geometry: bool = True,
) -> list[Lesion]:
    """Lists the 26-connected components of ``mask``, most suspicious (largest sum of the map) first.

    Args:
        anomaly_map: float (X, Y, Z), in [0, 1].
        mask: bool (X, Y, Z).
        affine: float (4, 4), voxel to world mm, RAS+.
        min_volume_mm3: smaller components are left out of the list (not of the mask).
        has_geometry: False where mm mean nothing: volumes are None, and 10 "mm^3" are 10 pixels.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if not count:
        return []
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    lesions = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == label
        size = int(np.count_nonzero(inside))
        if size * voxel_mm3 < min_volume_mm3:
            continue
        values = anomaly_map[box][inside].astype(np.float64)
        corner = np.array([edge.start for edge in box])
        center = np.argwhere(inside).mean(axis=0) + corner
        lesions.append(
            Lesion(
                volume_ml=size * voxel_mm3 / 1000 if has_geometry else None,
                voxels=size,
                center_mm=tuple(float(v) for v in affine[:3, :3] @ center + affine[:3, 3]),
                center_voxel=tuple(round(v) for v in center.tolist()),
                bounding_box=tuple((edge.start, edge.stop - 1) for edge in box),
                maximum=float(values.max()),
                mean=float(values.mean()),
            )
        )
    return sorted(lesions, key=lambda lesion: lesion.mean * lesion.voxels, reverse=True)
