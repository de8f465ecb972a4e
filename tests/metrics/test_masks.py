from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medzsad.metrics.masks import (
    as_mask,
    as_scores,
    label_regions,
    match,
    pair_up,
    region_weights,
    resize_linear,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([False, True]), [0, 1]),
        (np.array([0, 1], np.uint8), [0, 1]),
        (np.array([0, 255], np.uint8), [0, 1]),
        (np.array([0, 3, 127, 128, 250, 255], np.uint8), [0, 0, 0, 1, 1, 1]),  # a JPEG
        (np.array([0, 1, 2, 4], np.int16), [0, 1, 1, 1]),  # label numbers of BraTS
        (np.array([0.0, 1.0, 2.0]), [0, 1, 1]),  # the same, read as floats
        (np.array([0, 1, 65535], np.uint16), [0, 1, 1]),
        (np.array([0.0, 0.49, 0.5, 1.0], np.float32), [0, 0, 1, 1]),  # a resized mask
        (np.zeros(3, np.uint8), [0, 0, 0]),
        (np.zeros((0,), np.uint8), []),
    ],
)
def test_masks_of_every_kind(values, expected):
    assert as_mask(values).dtype == bool
    assert as_mask(values).tolist() == [bool(v) for v in expected]


@pytest.mark.parametrize("values", [[0.0, np.nan], [-1, 1]])
def test_masks_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match="NaN or negative"):
        as_mask(values)


def test_scores_keep_their_precision():
    assert as_scores(np.zeros(2, np.float16)).dtype == np.float32
    assert as_scores(np.zeros(2, np.int64)).dtype == np.float64
    array = np.zeros(2, np.float32)
    assert as_scores(array) is array
    with pytest.raises(ValueError, match="must be numbers"):
        as_scores(["high"])


@pytest.mark.parametrize(("shape", "wanted"), [((7, 5), (20, 3)), ((5, 8), (5, 16)), ((1, 6), (4, 1))])
def test_resizing_is_that_of_torch(shape, wanted):
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    expected = F.interpolate(
        torch.from_numpy(array)[None, None], wanted, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(resize_linear(array, wanted), expected[0, 0].numpy(), atol=1e-6)


def test_resizing_never_leaves_the_range_of_the_scores():
    array = np.random.default_rng(1).choice(np.array([0, 1 - 2**-24, 1], np.float32), (50, 50))
    resized = resize_linear(array, (333, 77))
    assert resized.min() >= 0
    assert resized.max() <= 1


def test_the_map_is_brought_to_the_mask_and_the_mask_stays():
    mask = np.zeros((9, 6), np.uint8)
    mask[4, 2] = 255
    scores, truth = match(np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2), mask)
    assert scores.shape == truth.shape == (9, 6)
    assert truth.sum() == 1


def test_channel_axes_and_missing_masks():
    pairs = list(pair_up(np.zeros((2, 1, 4, 5)), [np.ones((4, 5)), None]))
    assert [scores.shape for scores, _ in pairs] == [(4, 5), (1, 4, 5)]
    assert [int(mask.sum()) for _, mask in pairs] == [20, 0]
    assert match(np.zeros((4, 5)), np.ones((1, 4, 5)))[1].shape == (4, 5)


def test_what_does_not_fit_is_refused_with_the_place():
    with pytest.raises(ValueError, match="map 1 holds NaN"):
        list(pair_up([np.zeros((2, 2)), np.full((2, 2), np.nan)], [None, None]))
    with pytest.raises(ValueError, match="1 masks, but more"):
        list(pair_up(np.zeros((2, 3, 3)), np.zeros((1, 3, 3))))
    with pytest.raises(ValueError, match="2 maps, but more"):
        list(pair_up(np.zeros((2, 3, 3)), np.zeros((3, 3, 3))))
    with pytest.raises(ValueError, match="same axes"):
        match(np.zeros((2, 3)), np.zeros((2, 2, 3)))


def test_infinite_scores_are_not_nan():
    scores, _ = match(np.array([[np.inf, -np.inf]]), np.array([[1, 0]]))
    assert scores.tolist() == [[np.inf, -np.inf]]


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
