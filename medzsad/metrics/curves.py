"""Curves for drawing: ROC, precision-recall and per-region overlap, thinned without changing their look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medzsad.metrics import formulas
from medzsad.metrics.ranking import Ranking


@dataclass(frozen=True)
class Curve:
    """Points of a curve, to be joined by straight lines.

    Attributes:
        x, y: float64 (n,), in [0, 1].
        thresholds: float64 (n,), the score that each point belongs to; inf at the start and -inf at the end
            where no score does.
    """

    x: np.ndarray
    y: np.ndarray
    thresholds: np.ndarray


def roc_curve(ranking: Ranking, points: int = 1000) -> Curve:
    """Return true positive rate against false positive rate, from (0, 0) to (1, 1).

    Args:
        ranking: of images or pixels.
        points: keep at most so many. A point that is left out lies within about 2 / ``points`` of the curve's
            length from a kept one, along the curve.

    Raises:
        UndefinedMetric: if a class is missing. So do the others here.
    """
    ranking.require_both()
    return _rising(ranking, ranking.new / ranking.positives, 1.0, points)


def pro_curve(ranking: Ranking, fpr_limit: float = 1.0, points: int = 1000) -> Curve:
    """Mean region overlap against false positive rate, from (0, 0) to the exact value at the limit."""
    limit = formulas.check_limit(fpr_limit)
    ranking.require_both()
    if ranking.weight is None:
        raise ValueError("this ranking was made without regions")
    return _rising(ranking, ranking.weight / ranking.regions, limit, points)


def pr_curve(ranking: Ranking, points: int = 1000) -> Curve:
    """Precision against recall, from (0, 1) to (1, P / (P + N)).

    The average precision is not the area under these straight lines but that of steps; see
    :func:`medzsad.metrics.formulas.average_precision`.
    """
    ranking.require_both()
    tp = np.stack([ranking.tp - ranking.new, ranking.tp], axis=-1).reshape(-1)
    fp = np.stack([ranking.fp_above, ranking.fp], axis=-1).reshape(-1)
    tp, fp = np.r_[0, tp, ranking.positives], np.r_[0, fp, ranking.negatives]
    return _thin(tp / ranking.positives, formulas.precision(tp, fp), _thresholds(ranking), points)


def _rising(ranking: Ranking, rises: np.ndarray, limit: float, points: int) -> Curve:
    """Return the curve that rises by ``rises`` at the ranking's thresholds, up to FPR ``limit``."""
    height = rises.cumsum()
    # Before and at each threshold: a level piece leads to the first, a rising one (slanted by ties) to the
    # second.
    x = np.stack([ranking.fp_above, ranking.fp], axis=-1).reshape(-1) / ranking.negatives
    y = np.stack([np.r_[0, height[:-1]], height], axis=-1).reshape(-1)
    x, y, thresholds = np.r_[0, x, 1], np.r_[0, y, 1].clip(0, 1), _thresholds(ranking)
    if limit < 1:
        last = int(np.searchsorted(x, limit, side="right"))
        share = (limit - x[last - 1]) / (x[last] - x[last - 1])
        end = y[last - 1] + share * (y[last] - y[last - 1])
        x, y = np.r_[x[:last], limit], np.r_[y[:last], end]
        thresholds = thresholds[: last + 1]
    return _thin(x, y, thresholds, points)


def _thresholds(ranking: Ranking) -> np.ndarray:
    return np.r_[np.inf, np.repeat(ranking.thresholds.astype(np.float64), 2), -np.inf]


def _thin(x: np.ndarray, y: np.ndarray, thresholds: np.ndarray, points: int) -> Curve:
    """Keep the ends and the points after each equal stretch of the way along the curve."""
    if points < 4:
        raise ValueError(f"a curve needs at least 4 points, got {points}")
    if len(x) > points:
        way = np.r_[0, (np.abs(np.diff(x)) + np.abs(np.diff(y))).cumsum()]
        # Both ends of a stretch that crosses a mark are kept, so a long level piece stays level.
        after = np.searchsorted(way, np.linspace(0, way[-1], points // 2)[1:-1])
        kept = np.unique(np.r_[0, (after - 1).clip(0), after, len(x) - 1])
        x, y, thresholds = x[kept], y[kept], thresholds[kept]
    return Curve(x, y, thresholds)
