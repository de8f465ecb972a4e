"""Connected regions of a mask, and the weight that makes each of them count alike."""

from __future__ import annotations

import numpy as np


def label_regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the connected regions of a mask from 1; diagonal neighbours belong together.

    Args:
        mask: bool, 2D (8-connected) or 3D (26-connected).

    Returns:
        int32 array of the mask's shape, 0 outside the regions, and the number of regions.
    """
    from scipy import ndimage

    return ndimage.label(mask, structure=np.ones((3,) * mask.ndim))


def region_weights(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Give each anomalous pixel the weight 1 / (size of its region), so that a region weighs 1 in all.

    Args:
        mask: bool, 2D or 3D.

    Returns:
        float64 array of one weight per True of the mask, in the order of ``array[mask]``, and the number of
        regions.
    """
    from scipy import ndimage

    box = ndimage.find_objects(np.ascontiguousarray(mask).view(np.uint8), max_label=1)[0]
    if box is None:
        return np.empty(0), 0
    # The box holds every True, so the order of array[mask] is the same inside it.
    labels, count = label_regions(mask[box])
    inside = labels[mask[box]]
    return (1 / np.bincount(inside, minlength=count + 1).clip(1))[inside], count
