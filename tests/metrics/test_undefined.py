from __future__ import annotations

import math

import pytest

from medzsad.metrics.undefined import Undefined, UndefinedMetric, mean_of, value_of


def test_undefined_is_neither_zero_nor_a_number():
    missing = Undefined("no anomalous image")
    assert str(missing) == "undefined"
    assert math.isnan(float(missing))
    assert missing != 0


def test_value_of_keeps_the_reason_and_lets_other_errors_through():
    def fail() -> float:
        raise UndefinedMetric("no normal pixel")

    assert value_of(fail) == Undefined("no normal pixel")
    assert value_of(lambda: 0.25) == 0.25
    with pytest.raises(ZeroDivisionError):
        value_of(lambda: 1 / 0)


def test_undefined_metric_is_a_value_error_that_says_why():
    with pytest.raises(ValueError, match="undefined: no anomalous pixel"):
        raise UndefinedMetric("no anomalous pixel")


def test_a_mean_is_undefined_where_a_part_is():
    assert mean_of([0.5, 1.0]) == 0.75
    assert mean_of([0.5, Undefined("first"), Undefined("second")]) == Undefined("first")
