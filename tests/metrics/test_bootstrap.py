from __future__ import annotations

import time

import numpy as np
import pytest

from medzsad.metrics.bootstrap import Draws, Interval, image_intervals, intervals_of, mean_intervals
from medzsad.metrics.image import image_metrics
from medzsad.metrics.undefined import Undefined


def scored(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(images) < 0.4
    return np.round(rng.standard_normal(images) + labels, 1), labels


def test_each_draw_is_exact():
    scores, labels = scored(25)
    draws = Draws(resamples=200, seed=7)
    values = {name: [] for name in ("image_auroc", "image_ap", "image_f1_max", "image_mad")}
    for counts in draws.counts(25, 1):
        for row in counts.astype(int):
            summary = image_metrics(np.repeat(scores, row), np.repeat(labels, row))
            for name, column in values.items():
                column.append(float(summary[name]))
    found = image_intervals(scores, labels, draws)
    assert found.keys() == values.keys()
    for name, column in values.items():
        assert list(found[name]) == pytest.approx(np.nanpercentile(column, [2.5, 97.5]), abs=1e-12)


def test_seeds_levels_and_blocks():
    scores, labels = scored(60)
    first = image_intervals(scores, labels, Draws(seed=1))
    assert first == image_intervals(scores, labels, Draws(seed=1))
    assert first != image_intervals(scores, labels, Draws(seed=2))
    low, high = first["image_auroc"]
    narrow_low, narrow_high = image_intervals(scores, labels, Draws(seed=1, level=0.5))["image_auroc"]
    assert low < narrow_low < narrow_high < high
    blocks = list(Draws(resamples=50).counts(30, 100_000))
    assert sum(len(block) for block in blocks) == 50
    assert len(blocks) == 5
    whole = np.concatenate(blocks)
    assert (whole.sum(axis=1) == 30).all()
    np.testing.assert_array_equal(whole, next(Draws(resamples=50).counts(30, 1)))


def test_draws_of_one_class_are_skipped_and_counted():
    found = image_intervals([0.1, 0.2, 0.9], [0, 0, 1], Draws(resamples=2000))
    # All three normal, or all three anomalous: (2/3)^3 + (1/3)^3.
    assert found["image_auroc"].skipped / 2000 == pytest.approx(1 / 3, abs=0.04)
    assert tuple(found["image_auroc"]) == (1, 1)


def test_one_class_is_undefined_with_the_reason():
    assert set(image_intervals([0.1, 0.2], [0, 0]).values()) == {Undefined("no anomalous image")}
    with pytest.raises(ValueError, match="NaN"):
        image_intervals([0.1, np.nan], [0, 1])
    with pytest.raises(ValueError, match="one label per score"):
        image_intervals([0.1], [0, 1])
    for wrong in ({"resamples": 0}, {"level": 1.0}):
        with pytest.raises(ValueError, match="at least one draw"):
            Draws(**wrong)


def test_five_thousand_images_take_seconds():
    scores, labels = scored(5000)
    begin = time.process_time()
    low, high = image_intervals(scores + np.linspace(0, 1e-6, 5000), labels)["image_auroc"]
    assert time.process_time() - begin < 20
    # The standard error of this AUROC is about 0.006.
    assert 0.015 < high - low < 0.04


def test_means_over_cases_leave_undefined_cases_out():
    values = [0.2, 0.4, float("nan"), 0.9, 0.5]
    draws = Draws(resamples=30, seed=3)
    means = [np.nanmean(np.repeat(values, row)) for c in draws.counts(5, 1) for row in c.astype(int)]
    found = mean_intervals({"dice": values, "none": [float("nan")] * 5}, draws)
    assert list(found["dice"]) == pytest.approx(np.nanpercentile(means, [2.5, 97.5]), abs=1e-12)
    assert isinstance(found["none"], Undefined)


def test_intervals_of_any_summary():
    def summarise(items: list[float]) -> dict[str, object]:
        return {"mean": np.mean(items) if items else np.nan, "never": Undefined("because")}

    draws = Draws(resamples=100, seed=2)
    found = intervals_of([1.0, 2.0, 3.0, 4.0], summarise, draws)
    assert found["never"] == Undefined("because")
    assert list(found["mean"]) == pytest.approx(list(mean_intervals({"x": [1, 2, 3, 4]}, draws)["x"]))
    assert isinstance(found["mean"], Interval)
    assert intervals_of([], summarise)["mean"] == Undefined("no case")
