"""One volume stored in every order and direction of its axes."""

from __future__ import annotations

import itertools

import numpy as np


def all_orientations() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def reoriented(voxels: np.ndarray, affine: np.ndarray, order, signs) -> tuple[np.ndarray, np.ndarray]:
    """The same volume stored with permuted and flipped axes; world positions unchanged."""
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        change[old, new] = sign
        if sign < 0:
            change[old, 3] = voxels.shape[old] - 1
    stored = voxels.transpose(*order)[tuple(slice(None, None, sign) for sign in signs)]
    return np.ascontiguousarray(stored), affine @ change
