"""A metric that the data cannot decide: said with its reason, never replaced by 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class UndefinedMetric(ValueError):  # noqa: N818 - reads as what it is where it is raised
    """A metric that has no value for this data, such as an AUROC without an anomalous image.

    Attributes:
        reason: what the data lack, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"undefined: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Undefined:
    """Stands in a summary where a metric has no value. ``str()`` is "undefined", ``float()`` is NaN.

    Attributes:
        reason: what the data lack, in a few words.
    """

    reason: str

    def __str__(self) -> str:
        return "undefined"

    def __float__(self) -> float:
        return float("nan")


Value = float | Undefined
Summary = dict[str, Value]


def value_of(metric: Callable[[], float]) -> Value:
    """Return what ``metric()`` returns, or the reason for which it is undefined."""
    try:
        return float(metric())
    except UndefinedMetric as missing:
        return Undefined(missing.reason)


def mean_of(values: list[Value]) -> Value:
    """Return the mean of all ``values``; undefined, for the first reason, where any of them is."""
    for value in values:
        if isinstance(value, Undefined):
            return value
    return sum(float(value) for value in values) / len(values)
