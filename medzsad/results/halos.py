"""Large candidates with a core and a halo around it are outlined at the core."""

from __future__ import annotations

import numpy as np

LARGE_MM3 = 10_000.0  # components from here on may have a halo; of smaller ones it would be the rim


def cut_halos(
    components: np.ndarray, anomaly_map: np.ndarray, voxel_mm3: float, two_classes: float
) -> set[int]:
    """Take the lower class out of large components whose values fall into two clear ones, in place.

    Returns their numbers; what is left of them may be in pieces.
    """
    from scipy import ndimage

    cut = set()
    for component, box in enumerate(ndimage.find_objects(components), start=1):
        inside = components[box] == component
        size = np.count_nonzero(inside)
        if size > 1 and size * voxel_mm3 >= LARGE_MM3:
            border, share = best_split(anomaly_map[box][inside])
            if share >= two_classes:
                components[box][inside & (anomaly_map[box] < border)] = 0
                cut.add(component)
    return cut


def best_split(values: np.ndarray) -> tuple[float, float]:
    """Split values (N,), N > 1, in two classes: the least value of the upper one, and how clear the split is.

    It is Otsu's, with the most variance between classes; how clear it is, is the share of this in all of the
    variance: 0.75 of values that are spread evenly, 1 of two values.
    """
    ordered = np.sort(values.astype(np.float64))
    sums, count = np.cumsum(ordered), len(ordered)
    below = np.arange(1, count)
    mean = sums[-1] / count
    between = (sums[:-1] - mean * below) ** 2 / (below * (count - below))
    at = int(between.argmax())
    whole = float(ordered.var()) * count
    return float(ordered[at + 1]), float(between[at]) * count / whole if whole else 0.0
