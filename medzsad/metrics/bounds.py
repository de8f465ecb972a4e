"""Bounds of metrics when only counts per bin of scores are known, not the order inside a bin.

Whatever that order is, with or without ties, the exact metric lies within the bounds. Bins known to hold one
score alone (ties) leave nothing open, so a map of few levels gets exact values. Bounds are widened by
:data:`ROUNDING` for floating point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medzsad.metrics import formulas
from medzsad.metrics.undefined import Undefined

ROUNDING = 1e-12


@dataclass(frozen=True)
class Bounded:
    """A value with bounds between which the exact one lies. ``float()`` gives the value.

    Attributes:
        value: the most likely one: as if the scores in a bin were in random order.
        lower, upper: rigorous bounds of the exact metric.
    """

    value: float
    lower: float
    upper: float

    def __float__(self) -> float:
        return self.value

    @property
    def error(self) -> float:
        """The most by which the value can be off."""
        return max(self.upper - self.value, self.value - self.lower)

    @classmethod
    def exact(cls, value: float) -> Bounded:
        """Return a value that needs no bounds."""
        return cls(float(value), float(value), float(value))


@dataclass(frozen=True)
class Tallies:
    """Counts per bin, highest scores first, and their running sums up to (``before``) and with each bin.

    ``mixed`` marks the bins that may hold several scores; in the others, all scores are equal.
    """

    positives: np.ndarray
    negatives: np.ndarray
    tp_before: np.ndarray
    fp_before: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    mixed: np.ndarray
    all_positives: float
    all_negatives: float

    @classmethod
    def of(cls, positives: np.ndarray, negatives: np.ndarray, mixed: np.ndarray | None = None) -> Tallies:
        """From counts (K,) of a histogram, highest scores first; without ``mixed``, any bin may be."""
        mixed = np.ones(positives.shape, bool) if mixed is None else mixed
        new, wrong = positives.astype(np.float64), negatives.astype(np.float64)
        tp, fp = new.cumsum(), wrong.cumsum()
        return cls(new, wrong, tp - new, fp - wrong, tp, fp, mixed, float(new.sum()), float(wrong.sum()))


def roc_area(tallies: Tallies) -> Bounded:
    """Inside a bin, an anomalous score is above all normal ones, or below all of them."""
    return partial_area(tallies, tallies.positives, tallies.all_positives, 1.0)


def partial_area(tallies: Tallies, weight: np.ndarray, total: float, limit: float) -> Bounded:
    """Return the same up to an FPR limit, as for AUPRO.

    Inside a bin, the curve rises at its start or its end.
    """

    def area(fp_above: np.ndarray, fp: np.ndarray) -> float:
        return float(formulas.partial_area(weight, fp_above, fp, total, tallies.all_negatives, limit))

    before, after, mixed = tallies.fp_before, tallies.fp, tallies.mixed
    latest, earliest = np.where(mixed, after, before), np.where(mixed, before, after)
    return _bounded(area(before, after), area(latest, after), area(before, earliest))


def average_precision(tallies: Tallies) -> Bounded:
    """Inside a bin: all anomalous scores equal and above the normal ones, or all distinct and below them.

    Above and equal, each counts with the precision (tp + p) / (tp + p + fp); nothing gives it more, as no
    order has more anomalous or fewer normal ones at or above it. Below and distinct, the i-th of p counts
    with (tp + i) / (tp + i + c), where c = fp + n; nothing gives it less. Their sum is p - c (H(m + p) -
    H(m)) with m = tp + c and harmonic numbers H, whose difference is less than log((m + p + 1/2) / (m +
    1/2)), as 1 / x is convex: a lower bound, and tight. In random order, an anomalous score has half of its
    bin before it.
    """
    new, before, fp, mixed = tallies.positives, tallies.tp_before, tallies.fp, tallies.mixed
    tied = new * formulas.precision(tallies.tp, fp)
    highest = new * formulas.precision(tallies.tp, tallies.fp_before)
    lowest = new - fp * np.log1p(new / (before + fp + 0.5))
    halfway = new * formulas.precision(before + (new + 1) / 2, fp - tallies.negatives / 2)
    value, lower, upper = (
        float(np.where(mixed, open_, tied).sum()) / tallies.all_positives
        for open_ in (halfway, lowest, highest)
    )
    return _bounded(value, lower, upper)


def best_f1(tallies: Tallies) -> tuple[Bounded, int]:
    """Return the best bin edge gives an F1 that is attained.

    At most a bin's anomalous ones come without its normal
    ones.

    Returns:
        The highest F1 and the index of the bin whose lower edge gives its value.
    """
    values = formulas.f1(tallies.tp, tallies.fp, tallies.all_positives)
    best = int(values.argmax())
    least = np.where(tallies.mixed, tallies.fp_before, tallies.fp)
    upper = formulas.f1(tallies.tp, least, tallies.all_positives).max()
    return _bounded(float(values[best]), float(values[best]), float(upper)), best


def mean(values: list[Bounded | Undefined]) -> Bounded | Undefined:
    """Return the mean of bounded values, with the mean of their bounds."""
    for value in values:
        if isinstance(value, Undefined):
            return value
    columns = np.array([(v.value, v.lower, v.upper) for v in values if isinstance(v, Bounded)])
    return Bounded(*columns.mean(axis=0).tolist())


def _bounded(value: float, lower: float, upper: float) -> Bounded:
    return Bounded(value, max(0.0, lower - ROUNDING), min(1.0, upper + ROUNDING))
