from __future__ import annotations

import numpy as np
import pytest
from metric_sets import make_set

from medzsad.metrics.bootstrap import Draws
from medzsad.metrics.pixel import pixel_metrics
from medzsad.metrics.resampling import SAMPLE, PerImageCounts, _Picker, pixel_intervals, quantile_edges
from medzsad.metrics.undefined import Undefined


def brute_force(maps, masks, draws: Draws, **settings) -> dict[str, np.ndarray]:
    columns: dict[str, list[float]] = {}
    for counts in draws.counts(len(maps), 1):
        for row in counts.astype(int):
            summary = pixel_metrics(np.repeat(maps, row, axis=0), np.repeat(masks, row, axis=0), **settings)
            for name, value in summary.items():
                columns.setdefault(name, []).append(float(value))
    return {name: np.nanpercentile(column, [2.5, 97.5]) for name, column in columns.items()}


@pytest.fixture(scope="module")
def tied():
    """A set whose scores take 40 values, so that bins can hold one value each."""
    data = make_set(10, 24, seed=4)
    return np.round(data.maps * 40).astype(np.float32) / 40, data.masks


def test_exact_where_each_value_has_its_bin(tied):
    maps, masks = tied
    draws = Draws(resamples=150, seed=5)
    counts = PerImageCounts(np.arange(1, 41) / 40 - 1 / 80, threshold=0.5)
    for scores, mask in zip(maps, masks, strict=True):
        counts.add(scores, mask)
    found = counts.intervals(draws, fpr_limit=0.2)
    expected = brute_force(maps, masks, draws, fpr_limit=0.2, threshold=0.5)
    assert set(found) == set(expected) - {"dice_best_threshold"}
    for name, interval in found.items():
        assert list(interval) == pytest.approx(expected[name], abs=1e-9), name


def test_quantile_bins_are_close_to_brute_force():
    data = make_set(15, 32, seed=6)
    draws = Draws(resamples=200, seed=8)
    found = pixel_intervals(data.maps, data.masks, draws, threshold=0.5, bins=2048)
    expected = brute_force(data.maps, data.masks, draws, threshold=0.5)
    for name, interval in found.items():
        assert list(interval) == pytest.approx(expected[name], abs=2e-3), name
        assert interval.high - interval.low > 0.01, name


def test_equal_bins_for_streams_and_merging(tied):
    maps, masks = tied
    parts = [PerImageCounts(256), PerImageCounts(256)]
    for number, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        parts[number >= 4].add(scores, mask)
    total = parts[0] + parts[1]
    assert (len(total), len(parts[0])) == (10, 4)
    low, high = total.intervals()["pixel_auroc"]
    assert low < pixel_metrics(maps, masks)["pixel_auroc"] < high
    with pytest.raises(ValueError, match="cannot be added"):
        PerImageCounts(256) + PerImageCounts(128)


def test_one_class_and_bad_edges():
    counts = PerImageCounts(16, threshold=0.5)
    assert set(counts.intervals().values()) == {Undefined("no anomalous pixel")}
    counts.add(np.full((3, 3), 0.2), None)
    assert set(counts.intervals().values()) == {Undefined("no anomalous pixel")}
    assert set(pixel_intervals([], []).values()) == {Undefined("no anomalous pixel")}
    with pytest.raises(ValueError, match="rising"):
        PerImageCounts(np.array([0.5, 0.5]))


def test_images_may_be_read_from_iterators(tied):
    maps, masks = tied
    draws = Draws(resamples=50)
    assert pixel_intervals(iter(maps), iter(masks), draws) == pixel_intervals(maps, masks, draws)


def test_volumes_are_resampled_by_case():
    rng = np.random.default_rng(9)
    maps, labels = rng.random((6, 4, 5, 6)), rng.random((6, 4, 5, 6)) < 0.2
    found = pixel_intervals(maps, labels, unit="voxel")
    assert found["voxel_auroc"].low < 0.5 < found["voxel_auroc"].high


def test_edges_are_dense_where_anomalous_scores_are():
    rng = np.random.default_rng(10)
    edges = quantile_edges(rng.random(100_000) * 0.1, 0.9 + rng.random(50) * 0.1, 200)
    assert (np.diff(edges) > 0).all()
    assert (edges > 0.9).sum() >= 45
    assert len(edges) < 200


def test_the_sample_stays_bounded_and_even():
    picker = _Picker()
    for start in range(5):
        picker.add(np.arange(700_000) + start * 700_000)
    assert SAMPLE / 4 < picker.picked().size <= SAMPLE
    assert np.quantile(picker.picked(), [0.1, 0.5, 0.9]) == pytest.approx(
        3_500_000 * np.array([0.1, 0.5, 0.9]), rel=0.01
    )
