from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_sets import make_set, plain_aupro

from medzsad.metrics import aupro
from medzsad.metrics.undefined import UndefinedMetric


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.3, 0.7, 1.0])
def test_equals_a_loop_over_every_threshold(image_set, limit):
    expected = plain_aupro(image_set.maps[:, ::2, ::2], image_set.masks[:, ::2, ::2], limit)
    assert aupro(image_set.maps[:, ::2, ::2], image_set.masks[:, ::2, ::2], fpr_limit=limit) == pytest.approx(
        expected, abs=1e-12
    )


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([0.02, 0.3, 1.0]))
def test_equals_the_loop_with_heavy_ties(seed, levels, limit):
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, levels, (2, 6, 7)).astype(np.float32)
    masks = rng.random((2, 6, 7)) < 0.3
    masks[0, 0, :2] = (True, False)
    assert aupro(maps, masks, fpr_limit=limit) == pytest.approx(plain_aupro(maps, masks, limit), abs=1e-12)


def test_volumes_have_26_connected_regions():
    rng = np.random.default_rng(1)
    maps, masks = rng.random((2, 5, 6, 4)), rng.random((2, 5, 6, 4)) < 0.08
    assert aupro(maps, masks) == pytest.approx(plain_aupro(maps, masks), abs=1e-12)


def test_every_region_counts_alike_whatever_its_size():
    scores, mask = np.zeros((1, 20, 20)), np.zeros((1, 20, 20), bool)
    mask[0, :10, :10] = True
    mask[0, 15, 15] = True
    scores[0, :10, :10] = 1
    # The large region is found at FPR 0, the small one only at the very last threshold, with all the rest.
    assert aupro(scores, mask) == pytest.approx(0.5 + 0.5 * 0.15, abs=1e-12)
    scores[0, :10, :10], scores[0, 15, 15] = 0, 1
    assert aupro(scores, mask) == pytest.approx(0.5 + 0.5 * 0.15, abs=1e-12)


def test_perfect_chance_and_worst():
    mask = np.zeros((1, 10, 10), bool)
    mask[0, 3:5, 3:5] = True
    assert aupro(mask.astype(float), mask) == 1
    assert aupro(np.ones((1, 10, 10)), mask) == pytest.approx(0.15)
    assert aupro(1.0 - mask, mask) == 0


def test_limits_and_empty_masks():
    data = make_set(3, 20)
    with pytest.raises(ValueError, match="FPR limit"):
        aupro(data.maps, data.masks, fpr_limit=0)
    with pytest.raises(UndefinedMetric, match="no anomalous pixel"):
        aupro(data.maps, np.zeros_like(data.masks))
    with pytest.raises(UndefinedMetric, match="no normal pixel"):
        aupro(data.maps, np.ones_like(data.masks))
