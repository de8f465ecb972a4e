"""Anomaly maps and ground truth brought together: what is anomalous, on which grid, in which regions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

# Half of 255: JPEG leaves values near 0 and near 255 in what was a mask.
PICTURE_CUT = 127


def as_mask(values: Any) -> np.ndarray:
    """Turn ground truth as it is found in data sets into booleans.

    The largest value tells what the array is:

    ==================  =====================================  =========
    largest value       taken for                              anomalous
    ==================  =====================================  =========
    (bool)              a mask                                 True
    up to 1             a mask, perhaps softened by resizing   >= 0.5
    2 to 127            label numbers (1, 2, 4, ...)           > 0
    128 to 255          an 8-bit picture, perhaps a JPEG       > 127
    above 255           label numbers, or a 16-bit picture     > 0
    ==================  =====================================  =========

    Label numbers that reach 128 look like a picture: hand over ``labels > 0`` instead.

    Args:
        values: any array or CPU tensor of booleans or numbers.

    Raises:
        ValueError: if there are NaN or negative values.
    """
    array = np.asarray(values)
    if array.dtype == bool or not array.size:
        return array.astype(bool)
    low, high = array.min(), array.max()
    if not (low >= 0 and high >= 0):
        raise ValueError("the ground truth holds NaN or negative values: give booleans, 0/1, 0/255 or labels")
    if high <= 1:
        return array >= 0.5 if array.dtype.kind == "f" else array > 0
    return array > (PICTURE_CUT if PICTURE_CUT < high <= 255 else 0)


def as_scores(values: Any) -> np.ndarray:
    """Scores as float32 or float64: smaller floats become float32, integers float64."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"scores must be numbers, got an array of {array.dtype}")
    if array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.float32 if array.dtype.kind == "f" else np.float64)


def resize_linear(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resizes linearly along each axis, with pixel centres at half-integers and without blurring.

    The same as torch's ``interpolate`` with ``align_corners=False``.

    Args:
        array: float, any number of axes.
        shape: the size wanted, of as many axes.
    """
    low_end, high_end = array.min(), array.max()
    for axis, (size, wanted) in enumerate(zip(array.shape, shape, strict=True)):
        if size == wanted:
            continue
        place = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).clip(0, size - 1)
        low = place.astype(np.intp)
        share = (place - low).astype(array.dtype).reshape([-1 if a == axis else 1 for a in range(array.ndim)])
        below, above = array.take(low, axis), array.take(np.minimum(low + 1, size - 1), axis)
        array = below + (above - below) * share
    # Rounding may overshoot by a bit, and scores up to 1 must stay so.
    return array.clip(low_end, high_end)


def pair_up(maps: Iterable[Any], masks: Iterable[Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield an anomaly map and its mask, of the same shape, image by image.

    Where the sizes differ it is the map that is resized (linearly) to the mask: ground truth stays as it is.

    Args:
        maps: array (N, H, W), (N, 1, H, W), or any iterable of arrays (H, W) or (1, H, W), of any sizes.
            Volumes (D, H, W) work alike.
        masks: as many masks (see :func:`as_mask`); None stands for "nothing anomalous here".

    Raises:
        ValueError: if the numbers of images or of axes differ, or if a map holds NaN; the message says where.
    """
    end = object()
    ones, others = iter(maps), iter(masks)
    for number in itertools.count():
        one, other = next(ones, end), next(others, end)
        if one is end and other is end:
            return
        if one is end or other is end:
            raise ValueError(
                f"{number} {'maps' if one is end else 'masks'}, but more of the other: pair them up"
            )
        yield match(one, other, f"map {number}")


def match(one: Any, other: Any, name: str = "the map") -> tuple[np.ndarray, np.ndarray]:
    """One map as floats and its mask as booleans, on the mask's grid; see :func:`pair_up`."""
    scores = as_scores(one)
    mask = np.zeros(scores.shape, bool) if other is None else as_mask(other)
    # A channel axis of one may stand in front of either.
    while scores.ndim > mask.ndim and scores.shape[0] == 1:
        scores = scores[0]
    while mask.ndim > scores.ndim and mask.shape[0] == 1:
        mask = mask[0]
    if scores.ndim != mask.ndim:
        raise ValueError(
            f"{name} has shape {scores.shape}, its mask {mask.shape}: they must have the same axes"
        )
    # The sum is the fast check; infinities of both signs would fool it.
    with np.errstate(invalid="ignore"):
        suspicious = np.isnan(scores.sum())
    if suspicious and np.isnan(scores).any():
        raise ValueError(f"{name} holds NaN")
    if scores.shape != mask.shape:
        scores = resize_linear(scores, mask.shape)
    return scores, mask


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
