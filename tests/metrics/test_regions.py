from __future__ import annotations

import numpy as np

from medzsad.metrics.regions import label_regions, region_weights


def test_diagonal_neighbours_belong_together_in_2d_and_3d():
    assert label_regions(np.eye(4, dtype=bool))[1] == 1
    cube = np.zeros((4, 4, 4), bool)
    cube[range(4), range(4), range(4)] = True
    assert label_regions(cube)[1] == 1
    assert label_regions(np.array([[1, 0, 1]], bool))[1] == 2


def test_each_region_weighs_one_in_the_order_of_its_pixels():
    mask = np.zeros((6, 8), bool)
    mask[1:3, 1:3] = True
    mask[1, 6] = True
    weights, count = region_weights(mask)
    assert count == 2
    assert weights.tolist() == [0.25, 0.25, 1, 0.25, 0.25]


def test_empty_and_full_masks():
    weights, count = region_weights(np.zeros((3, 3), bool))
    assert (weights.size, count) == (0, 0)
    weights, count = region_weights(np.ones((2, 5), bool))
    assert (weights.tolist(), count) == ([0.1] * 10, 1)
    weights, count = region_weights(np.asfortranarray(np.eye(3, dtype=bool)))
    assert (weights.tolist(), count) == ([1 / 3] * 3, 1)
