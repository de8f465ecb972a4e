from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_sets import make_set, plain_aupro
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from medzsad.metrics import aupro, pixel
from medzsad.metrics.undefined import Undefined, UndefinedMetric


def test_summary_equals_scikit_learn_and_the_single_metrics(image_set):
    maps, masks = image_set.maps, image_set.masks
    summary = pixel.pixel_metrics(maps, masks, threshold=0.5)
    labels, scores = masks.ravel(), maps.ravel()
    assert summary["pixel_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert summary["pixel_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert summary["dice"] == pytest.approx(f1_score(labels, scores >= 0.5), abs=1e-12)
    best, threshold = pixel.best_dice(maps, masks)
    assert best == pytest.approx(f1_score(labels, scores >= np.float32(threshold)), abs=1e-12)
    assert (summary["dice_best"], summary["dice_best_threshold"]) == (best, threshold)
    assert summary["pixel_f1_max"] == best == pixel.pixel_f1_max(maps, masks)
    assert summary["pixel_auroc"] == pixel.pixel_auroc(maps, masks)
    assert summary["pixel_ap"] == pixel.pixel_ap(maps, masks)
    parts = [summary[f"pixel_{name}"] for name in ("auroc", "ap", "f1_max", "aupro")]
    assert summary["pixel_mad"] == pytest.approx(np.mean(parts), abs=1e-12)
    assert summary["pixel_mad"] == pytest.approx(pixel.pixel_mad(maps, masks), abs=1e-12)
    assert pixel.pixel_mad(maps, masks, fpr_limit=0.05) < summary["pixel_mad"]


def test_published_values(parity):
    summary = pixel.pixel_metrics(parity["maps"], parity["masks"])
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1_max"):
        assert summary[name] == pytest.approx(float(parity[name]), abs=1e-9)
    # Published with 200 thresholds.
    assert summary["pixel_aupro"] == pytest.approx(float(parity["pixel_aupro_200steps_fpr0.3"]), abs=0.01)


def test_forms_of_the_same_set_give_the_same_values(image_set):
    maps, masks = image_set.maps, image_set.masks
    expected = pixel.pixel_metrics(maps, masks, threshold=0.4)
    assert pixel.pixel_metrics(maps[:, None], masks * np.uint8(255), threshold=0.4) == expected
    optional = [mask if mask.any() else None for mask in masks]
    assert pixel.pixel_metrics(iter(maps), iter(optional), threshold=0.4) == expected
    assert pixel.pixel_metrics(maps.astype(np.float64), masks) == {
        name: value for name, value in expected.items() if name != "dice"
    }


def test_images_of_differing_sizes_and_maps_smaller_than_masks():
    small = np.array([[0.1, 0.9], [0.2, 0.3]], np.float32)
    mask = np.zeros((4, 4), bool)
    mask[:2, 2:] = True
    other, nothing = np.full((3, 5), 0.05, np.float32), np.zeros((3, 5), np.uint8)
    assert pixel.pixel_auroc([small, other], [mask, nothing]) == 1
    assert pixel.rank_pixels([small, other], [mask, nothing]).negatives == 12 + 15


def test_maps_of_mixed_precision_are_ranked_together():
    maps = [np.array([[0.1, 0.7]], np.float32), np.array([[0.1, 0.2]], np.float64)]
    masks = [np.array([[1, 0]]), np.array([[0, 0]])]
    # float32(0.1) is a little more than 0.1.
    assert pixel.pixel_auroc(maps, masks) == pytest.approx(1 / 3)


def test_one_class_is_undefined_with_the_reason():
    maps = np.random.default_rng(0).random((2, 4, 4))
    normal = pixel.pixel_metrics(maps, np.zeros((2, 4, 4)), threshold=0.5)
    assert set(normal.values()) == {Undefined("no anomalous pixel")}
    full = pixel.pixel_metrics(maps, np.ones((2, 4, 4)), threshold=0.5)
    assert full.pop("dice") == pytest.approx(2 * (maps >= 0.5).sum() / (32 + (maps >= 0.5).sum()))
    assert set(full.values()) == {Undefined("no normal pixel")}
    assert set(pixel.pixel_metrics([], []).values()) == {Undefined("no anomalous pixel")}
    with pytest.raises(UndefinedMetric, match="no anomalous pixel"):
        pixel.dice(maps, [None, None], 0.5)


def test_a_threshold_that_a_score_equals_counts_it():
    scores = np.array([[0.3, 0.1]], np.float32)
    assert pixel.dice([scores], [[[1, 0]]], 0.3) == 1
    assert pixel.dice([scores], [[[1, 0]]], np.float64(0.3)) == 1


def test_maps_are_left_as_they_are(image_set):
    before = image_set.maps.copy()
    pixel.pixel_metrics(image_set.maps, image_set.masks)
    np.testing.assert_array_equal(before, image_set.maps)


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
