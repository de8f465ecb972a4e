"""Pooled pixels: both modes against scikit-learn, and the switch between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medzsad.evaluation.pooling import PixelPool
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.metrics.bootstrap import Draws

EXACT = EvaluationSettings(mode="exact")


@pytest.fixture
def maps_and_masks() -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    masks = [np.zeros((30, 40), bool) for _ in range(40)]
    for number, mask in enumerate(masks):
        if number % 3:
            mask[5 : 8 + number % 7, 10 : 14 + number % 5] = True
    maps = [
        np.clip(0.3 + 0.15 * rng.standard_normal(mask.shape) + 0.25 * mask, 0, 1).astype(np.float32)
        for mask in masks
    ]
    return maps, masks


def fill(pool: PixelPool, maps_and_masks: tuple[list[np.ndarray], list[np.ndarray]]) -> PixelPool:
    for anomaly_map, mask in zip(*maps_and_masks, strict=True):
        pool.add(anomaly_map, mask)
    return pool


def test_exact_figures_are_scikit_learns(maps_and_masks) -> None:
    figures, curves = fill(PixelPool(EXACT, 0.5), maps_and_masks).finish()
    truth, scores = np.stack(maps_and_masks[1]).ravel(), np.stack(maps_and_masks[0]).ravel()
    assert figures["auroc"].value == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    assert figures["ap"].value == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    called = scores >= 0.5
    expected = 2 * (called & truth).sum() / (called.sum() + truth.sum())
    assert figures["dice"].value == pytest.approx(expected, abs=1e-9)
    assert figures["mad"].value == pytest.approx(
        np.mean([figures[key].value for key in ("auroc", "ap", "f1_max", "aupro")])
    )
    assert all(figure.bounds is None and figure.interval is None for figure in figures.values())
    assert set(curves) == {"roc", "pr", "pro"}
    assert curves["roc"][0][0] == 0
    assert curves["roc"][1][-1] == 1


@pytest.mark.parametrize("mode", ["histogram", "auto"])
def test_counted_figures_bound_the_exact_ones(maps_and_masks, mode: str) -> None:
    exact, exact_curves = fill(PixelPool(EXACT, 0.5), maps_and_masks).finish()
    settings = replace(EXACT, mode=mode, exact_pixels=10_000)
    pool = fill(PixelPool(settings, 0.5), maps_and_masks)
    figures, curves = pool.finish()
    assert pool.mode == "histogram"
    for key in ("auroc", "ap", "f1_max", "aupro", "mad"):
        low, high = figures[key].bounds
        assert low <= exact[key].value <= high, key
        assert high - low < 2e-3, key
    assert figures["dice"].value == exact["dice"].value
    assert figures["dice"].bounds is None
    for kind, (x, y) in curves.items():
        at = np.linspace(0.01, 0.29, 20)
        assert np.abs(np.interp(at, x, y) - np.interp(at, *exact_curves[kind])).max() < 0.03, kind


def test_auto_is_exact_while_it_fits(maps_and_masks) -> None:
    pool = fill(PixelPool(replace(EXACT, mode="auto"), 0.5), maps_and_masks)
    pool.finish()
    assert pool.mode == "exact"


@pytest.mark.parametrize("mode", ["exact", "histogram"])
def test_intervals_hold_the_value_and_follow_the_seed(maps_and_masks, mode: str) -> None:
    settings = replace(EXACT, mode=mode)
    runs = [
        fill(PixelPool(settings, 0.5, draws=Draws(200, seed=seed)), maps_and_masks).finish()[0]
        for seed in (1, 1, 2)
    ]
    for key in ("auroc", "ap", "f1_max", "aupro", "mad", "dice"):
        low, high = runs[0][key].interval
        assert low < runs[0][key].value < high, key
        assert runs[0][key].interval == runs[1][key].interval != runs[2][key].interval, key


def test_modes_give_like_intervals(maps_and_masks) -> None:
    exact, counted = (
        fill(PixelPool(replace(EXACT, mode=mode), 0.5, draws=Draws(300)), maps_and_masks).finish()[0]
        for mode in ("exact", "histogram")
    )
    for key in ("auroc", "ap", "f1_max", "aupro", "dice"):
        np.testing.assert_allclose(exact[key].interval, counted[key].interval, atol=0.01)


@pytest.mark.parametrize("mode", ["exact", "histogram"])
def test_one_class_is_undefined_with_the_reason(mode: str) -> None:
    pool = PixelPool(replace(EXACT, mode=mode), 0.5, draws=Draws(50))
    pool.add(np.full((5, 5), 0.5, np.float32), np.zeros((5, 5), bool))
    figures, curves = pool.finish()
    for key in ("auroc", "ap", "f1_max", "aupro", "mad", "dice"):
        assert figures[key].value is None
        assert "no anomalous pixel" in figures[key].reason
    assert curves == {}


def test_voxels_have_no_regions(maps_and_masks) -> None:
    figures, curves = fill(PixelPool(EXACT, 0.5, unit="voxel", regions=False), maps_and_masks).finish()
    assert "aupro" not in figures
    assert set(curves) == {"roc", "pr"}
    assert figures["dice_best"].value >= figures["dice"].value


def test_intervals_are_right_where_normal_images_come_first() -> None:
    rng = np.random.default_rng(0)
    masks = [np.zeros((40, 40), bool) for _ in range(60)]
    for mask in masks[40:]:
        mask[5:10, 5:9] = True
    # Images with anomalies score higher than all that the first 40 hold, anomalous pixels and others.
    maps = [
        (0.1 * rng.random(mask.shape) + mask.any() * rng.random(mask.shape) * 0.6 + 0.2 * mask).astype(
            np.float32
        )
        for mask in masks
    ]
    exact, counted = (
        fill(PixelPool(replace(EXACT, mode=mode), 0.5, draws=Draws(200)), (maps, masks)).finish()[0]
        for mode in ("exact", "histogram")
    )
    for key in ("auroc", "ap", "f1_max", "aupro"):
        np.testing.assert_allclose(exact[key].interval, counted[key].interval, atol=0.01, err_msg=key)
