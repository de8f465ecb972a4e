"""Figures and their means over classes."""

from __future__ import annotations

import pytest

from medzsad.evaluation.outcome import ClassOutcome, Figure, mean_figures


def one(name: str, figure: Figure) -> ClassOutcome:
    return ClassOutcome(name, 1, 1, {"image": {"auroc": figure}})


def test_the_mean_of_one_class_is_the_class() -> None:
    single = one("a", Figure(0.5, (0.4, 0.6)))
    assert mean_figures([single]) is single.figures


def test_means_have_bounds_where_classes_have_and_no_intervals() -> None:
    exact, counted = one("a", Figure(0.5, (0.4, 0.6))), one("b", Figure(0.7, None, (0.69, 0.72)))
    mean = mean_figures([exact, counted])["image"]["auroc"]
    assert mean.value == pytest.approx(0.6)
    assert mean.bounds == pytest.approx((0.595, 0.61))
    assert mean.interval is None


def test_undefined_anywhere_is_undefined_with_class_and_reason() -> None:
    mean = mean_figures([one("a", Figure(0.5)), one("b", Figure.undefined("no normal image"))])
    assert mean["image"]["auroc"] == Figure(None, reason="b: no normal image")


def test_figures_as_plain_data() -> None:
    assert Figure(0.5, (0.4, 0.6), (0.49, 0.51)).as_dict() == {
        "value": 0.5,
        "interval_95": [0.4, 0.6],
        "bounds": [0.49, 0.51],
    }
    assert Figure.undefined("why").as_dict() == {"value": None, "undefined": "why"}
