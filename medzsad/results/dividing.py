"""Candidates that hold several lesions are divided between their peaks.

Lesions that lie close together are one connected component of a soft map. Two of its peaks are two candidates
where the map falls between them, and where what they would be touches in a narrow neck: a large lesion has
many peaks, too, but its parts touch widely. What is much longer than wide may be divided at its dips.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

AROUND = np.ones((3, 3, 3), bool)
MOST_VOXELS = 1_000_000  # of a component; a larger one is no group of small lesions, and takes long
MOST_PEAKS = 1000  # more are noise


def divide_components(
    components: np.ndarray,
    chosen: Sequence[int],
    anomaly_map: np.ndarray,
    affine: np.ndarray,
    *,
    dip: float,
    neck: float,
    least_peak: float,
    least_mm3: float,
) -> list[int]:
    """Divide some components between their peaks, in place; return the numbers of the parts.

    The first part keeps the number of its component, the others get new ones. It is done along the patient's
    axes, so that the order of storage does not matter.

    Args:
        components: int (X, Y, Z), the number of each voxel's component from 1 on, 0 outside.
        chosen: those that are divided.
        anomaly_map: float (X, Y, Z), not negative.
        affine: float (4, 4), voxel to world mm, RAS+.
        dip, neck, least_peak, least_mm3: see :func:`divide`.
    """
    from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
    from scipy.ndimage import find_objects

    along = io_orientation(affine)
    back = ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), along)
    spacing = np.empty(3)
    spacing[along[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)
    boxes, last, numbers = find_objects(components), int(components.max()), list(chosen)
    for component in chosen:
        box = boxes[component - 1]
        upright = divide(
            apply_orientation(anomaly_map[box], along),
            apply_orientation(components[box] == component, along),
            spacing,
            dip=dip,
            neck=neck,
            least_peak=least_peak,
            least_mm3=least_mm3,
        )
        parts = apply_orientation(upright, back)
        components[box][parts > 1] = parts[parts > 1] + (last - 1)
        numbers += range(last + 1, last + int(parts.max()))
        last += int(parts.max()) - 1
    return numbers


def divide(
    values: np.ndarray,
    inside: np.ndarray,
    spacing: np.ndarray,
    *,
    dip: float,
    neck: float,
    least_peak: float = 0.0,
    least_mm3: float = 0.0,
) -> np.ndarray:
    """Divide one component: int32 (X, Y, Z), the part of each voxel from 1 on, 0 outside of it.

    Every voxel of the component belongs to a part. Parts grow from peaks by a watershed, down the map; those
    that touch widely are put together, the widest contact first. What is larger than :data:`MOST_VOXELS`, or
    has more than :data:`MOST_PEAKS` peaks, stays whole.

    Args:
        values: float (X, Y, Z), the map, not negative.
        inside: bool (X, Y, Z), the 26-connected component, not empty.
        spacing: (3,), of the voxels in mm.
        dip: a peak counts if every way to a higher one leads below this part of it; in (0, 1].
        neck: parts touch widely if the area between them in mm^2 (of the voxels' faces) is above this times
            the smaller one's volume in mm^3 to the power of two thirds. A cube's side has 1, a ball's widest
            section 1.2.
        least_peak: lower peaks do not count.
        least_mm3: smaller parts go to a neighbour before all others.
    """
    from scipy.ndimage import label
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    if np.count_nonzero(inside) > MOST_VOXELS:
        return inside.astype(np.int32)
    own = np.where(inside, values, 0).astype(np.float64)
    # What is left of a map when each peak is lowered by its dip, unless it is part of a higher one.
    lowered = reconstruction(own * dip, own, footprint=AROUND)
    peaks = local_maxima(lowered, connectivity=3) & inside & (lowered >= least_peak * dip * (1 - 1e-9))
    markers, count = label(peaks, AROUND)
    if not 2 <= count <= MOST_PEAKS:
        return inside.astype(np.int32)
    parts: np.ndarray = watershed(-own, markers, mask=inside, connectivity=3).astype(np.int32)
    numbers = _joined(parts, count, np.asarray(spacing, float), neck, least_mm3)
    joined: np.ndarray = np.unique(numbers, return_inverse=True)[1][parts].astype(np.int32)
    return joined


def _joined(parts: np.ndarray, count: int, spacing: np.ndarray, neck: float, least_mm3: float) -> np.ndarray:
    """Return which part each part goes to, int32 (count + 1,); 0 stays 0."""
    volumes = np.bincount(parts.ravel(), minlength=count + 1) * float(spacing.prod())
    contacts = _contacts(parts, count, spacing)
    numbers = np.arange(count + 1, dtype=np.int32)

    def width(pair: tuple[int, int]) -> tuple[bool, float]:
        """How wide two parts touch, and before all others those of which one is too small."""
        smaller = min(volumes[pair[0]], volumes[pair[1]])
        return smaller < least_mm3, contacts[pair] / smaller ** (2 / 3)

    while contacts:
        first, second = max(sorted(contacts), key=width)
        too_small, wide = width((first, second))
        if not too_small and wide <= neck:
            break
        numbers[numbers == second] = first
        volumes[first] += volumes[second]
        for pair in [pair for pair in contacts if second in pair]:
            area = contacts.pop(pair)
            other = pair[0] if pair[1] == second else pair[1]
            if other != first:
                kept = (min(first, other), max(first, other))
                contacts[kept] = contacts.get(kept, 0.0) + area
    return numbers


def _contacts(parts: np.ndarray, count: int, spacing: np.ndarray) -> dict[tuple[int, int], float]:
    """Return the area in mm^2 in which each pair of parts touches, the lower number first.

    Parts that touch in edges or corners alone have 0.
    """
    contacts: dict[tuple[int, int], float] = {}
    steps = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    for step in steps:
        here = tuple(slice(max(0, -by), min(0, -by) or None) for by in step)
        there = tuple(slice(max(0, by), min(0, by) or None) for by in step)
        one, other = parts[here], parts[there]
        differ = (one != other) & (one > 0) & (other > 0)
        low, high = np.minimum(one, other)[differ], np.maximum(one, other)[differ]
        codes, many = np.unique(low.astype(np.int64) * (count + 1) + high, return_counts=True)
        is_face = np.abs(step).sum() == 1
        area = float(np.prod(spacing[np.array(step) == 0])) if is_face else 0.0
        for code, number in zip(codes.tolist(), many.tolist(), strict=True):
            pair = divmod(code, count + 1)
            contacts[pair] = contacts.get(pair, 0.0) + number * area
    return contacts
