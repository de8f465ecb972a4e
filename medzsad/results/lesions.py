"""Lesion candidates: the connected components of a thresholded anomaly map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ORDER = "largest sum of the map inside first"
MOST = 10_000  # candidates; a map of specks has no more meaning, and their numbers must fit 16 bits


@dataclass(frozen=True)
class Lesion:
    """One lesion candidate.

    Attributes:
        volume_ml: volume in mL (for 2D images without geometry None).
        voxels: size in voxels.
        center_mm: centre of mass in world mm, RAS+.
        center_voxel: voxel index nearest to the centre of mass, in the scan's own axes, from 0. A ring's or a
            crescent's lies outside of it.
        peak_mm, peak_voxel: the same of the highest value of the map inside: the place to look at. Where the
            map reaches it more than once, the place nearest to the centre of mass.
        bounding_box: first and last voxel index along each axis, inclusive.
        maximum, mean: of the anomaly map inside.
    """

    volume_ml: float | None
    voxels: int
    center_mm: tuple[float, float, float]
    center_voxel: tuple[int, int, int]
    peak_mm: tuple[float, float, float]
    peak_voxel: tuple[int, int, int]
    bounding_box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    maximum: float
    mean: float


class LesionCandidates(NamedTuple):
    """The candidates of a mask, and which voxel belongs to which.

    Attributes:
        lesions: most suspicious (largest sum of the map) first.
        labels: uint16 (X, Y, Z): the number of a voxel's candidate, from 1, in the order of ``lesions``; the
            number after the last for voxels of the mask that belong to none; 0 outside the mask.
    """

    lesions: list[Lesion]
    labels: np.ndarray


def find_lesions(
    anomaly_map: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    *,
    min_volume_mm3: float = 10.0,
    has_geometry: bool = True,
) -> LesionCandidates:
    """Find the 26-connected components of ``mask``.

    Args:
        anomaly_map: float (X, Y, Z), in [0, 1].
        mask: bool (X, Y, Z).
        affine: float (4, 4), voxel to world mm, RAS+.
        min_volume_mm3: smaller components are no candidates (but stay in the mask). Nor are those beyond the
            :data:`MOST` most suspicious.
        has_geometry: False where mm mean nothing: volumes are None, and 10 "mm^3" are 10 pixels.
    """
    from scipy import ndimage

    components, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    found: list[tuple[Lesion, int]] = []
    for component, box in enumerate(ndimage.find_objects(components), start=1):
        inside = components[box] == component
        size = int(np.count_nonzero(inside))
        if size * voxel_mm3 < min_volume_mm3:
            continue
        values = anomaly_map[box][inside].astype(np.float64)
        bounds = [(edge.start, edge.stop - 1) for edge in box]
        corner = np.array([first for first, _ in bounds])
        places = np.argwhere(inside) + corner
        center = places.mean(axis=0)
        highest = places[values == values.max()]
        peak = highest[np.square((highest - center) @ affine[:3, :3].T).sum(axis=1).argmin()]
        lesion = Lesion(
            volume_ml=size * voxel_mm3 / 1000 if has_geometry else None,
            voxels=size,
            center_mm=_to_mm(affine, center),
            center_voxel=tuple(round(v) for v in center.tolist()),
            peak_mm=_to_mm(affine, peak),
            peak_voxel=tuple(peak.tolist()),
            bounding_box=(bounds[0], bounds[1], bounds[2]),
            maximum=float(values.max()),
            mean=float(values.mean()),
        )
        found.append((lesion, component))
    found.sort(key=lambda pair: pair[0].mean * pair[0].voxels, reverse=True)
    found = found[:MOST]
    numbers = np.full(count + 1, len(found) + 1, np.uint16)
    numbers[0] = 0
    for number, (_, component) in enumerate(found, start=1):
        numbers[component] = number
    return LesionCandidates([lesion for lesion, _ in found], numbers[components])


def _to_mm(affine: np.ndarray, voxel: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (affine[:3, :3] @ voxel + affine[:3, 3]).tolist()
    return x, y, z
