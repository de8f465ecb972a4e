"""95 % intervals by resampling images (or cases), the unit that a new test set would draw anew.

Percentile intervals: images are drawn with replacement, as many as there are, ``resamples`` times; the
interval runs between the 2.5th and the 97.5th percentile of the metric. Draws are not stratified by class:
how many anomalous images a set holds is part of its chance. A draw without both classes has no metric; such
draws are left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medzsad.metrics import formulas
from medzsad.metrics.masks import as_mask, as_scores
from medzsad.metrics.ranking import require_both
from medzsad.metrics.undefined import Undefined, UndefinedMetric

# A block of draws holds about so many numbers: 8 MB each.
BLOCK = 1_000_000


@dataclass(frozen=True)
class Interval:
    """A confidence interval; unpacks into ``low, high``.

    Attributes:
        low, high: its ends.
        skipped: draws in which the metric was undefined, and which were left out.
    """

    low: float
    high: float
    skipped: int = 0

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.high))


Intervals = dict[str, Interval | Undefined]


@dataclass(frozen=True)
class Draws:
    """How to resample.

    Attributes:
        resamples: number of draws.
        level: of confidence, in (0, 1).
        seed: the same seed draws the same images, whatever the metric, so that methods can be compared on the
            same draws.
    """

    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.level < 1:
            raise ValueError(f"need at least one draw and a level in (0, 1), got {self}")

    def counts(self, items: int, width: int) -> Iterator[np.ndarray]:
        """Yield float64 blocks (draws, items): how often each was drawn. ``width``: numbers per draw."""
        rng = np.random.default_rng(self.seed)
        step = max(1, BLOCK // max(items, width, 1))
        for start in range(0, self.resamples, step):
            rows = min(step, self.resamples - start)
            chosen = rng.integers(items, size=(rows, items)) + np.arange(rows)[:, None] * items
            yield (
                np.bincount(chosen.reshape(-1), minlength=rows * items)
                .reshape(rows, items)
                .astype(np.float64)
            )

    def interval(self, values: np.ndarray, reason: str) -> Interval | Undefined:
        """Return the interval of a metric's values (resamples,), NaN where undefined.

        ``reason`` if all are.
        """
        valid = values[~np.isnan(values)]
        if not valid.size:
            return Undefined(reason)
        low, high = np.percentile(valid, (50 * (1 - self.level), 50 * (1 + self.level)))
        return Interval(float(low), float(high), values.size - valid.size)


def image_intervals(scores: Any, labels: Any, draws: Draws | None = None) -> Intervals:
    """Intervals of the image metrics, exact in each draw.

    Args:
        scores: (N,) numbers, higher is more anomalous.
        labels: (N,), 1 or True for anomalous.
        draws: how to resample.

    Returns:
        ``image_auroc``, ``image_ap``, ``image_f1_max`` and ``image_mad``.

    Raises:
        ValueError: if the shapes differ or a score is NaN.
    """
    draws = draws or Draws()
    values, truth = as_scores(scores), as_mask(labels)
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(f"need one label per score, got shapes {values.shape} and {truth.shape}")
    if np.isnan(values).any():
        raise ValueError("the score of an image is NaN")
    if reason := missing_class(truth.sum(), (~truth).sum(), "image"):
        return dict.fromkeys(("image_auroc", "image_ap", "image_f1_max", "image_mad"), Undefined(reason))
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order].astype(np.float64)
    # Equal scores are one bin; bins of one draw are then as exact as a ranking of it.
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    blocks = []
    for counts in draws.counts(values.size, starts.size):
        counts = counts[:, order]
        positives = np.add.reduceat(counts * truth, starts, axis=1)
        negatives = np.add.reduceat(counts, starts, axis=1) - positives
        blocks.append(binned_metrics(positives, negatives))
    return intervals_of_blocks(blocks, draws, "image")


def mean_intervals(per_case: Mapping[str, Sequence[float]], draws: Draws | None = None) -> Intervals:
    """Intervals of means over cases, such as of per-case Dice.

    Args:
        per_case: a number per case for each name; NaN where it is undefined for a case, which is then left
            out of the mean.
        draws: how to resample.
    """
    draws = draws or Draws()
    results: Intervals = {}
    for name, column in per_case.items():
        values = np.asarray([float(value) for value in column])
        defined = ~np.isnan(values)
        if not defined.any():
            results[name] = Undefined("no case in which it is defined")
            continue
        with np.errstate(invalid="ignore"):
            means = [
                (counts @ np.where(defined, values, 0)) / (counts @ defined.astype(np.float64))
                for counts in draws.counts(values.size, 1)
            ]
        results[name] = draws.interval(np.concatenate(means), "no draw in which it is defined")
    return results


def intervals_of(
    items: Sequence[Any], summarise: Callable[[list[Any]], Mapping[str, Any]], draws: Draws | None = None
) -> Intervals:
    """Intervals of whatever ``summarise`` gives for a list of items: one call for each draw, so keep it
    short.

    Args:
        items: what is drawn, such as the :class:`~medzsad.metrics.lesionwise.CaseFindings` of each case.
        summarise: items to named values (floats or ``Undefined``).
        draws: how to resample.
    """
    draws = draws or Draws()
    whole = summarise(list(items))
    if not items:
        return {name: Undefined("no case") for name in whole}
    columns: dict[str, list[float]] = {name: [] for name in whole}
    for counts in draws.counts(len(items), 1):
        for row in counts.astype(int):
            drawn = summarise([item for item, times in zip(items, row, strict=True) for _ in range(times)])
            for name in whole:
                columns[name].append(float(drawn[name]))
    return {
        name: draws.interval(
            np.array(columns[name]), value.reason if isinstance(value, Undefined) else "no draw"
        )
        for name, value in whole.items()
    }


def binned_metrics(
    positives: np.ndarray,
    negatives: np.ndarray,
    weight: np.ndarray | None = None,
    regions: np.ndarray | None = None,
    limit: float = 0.3,
) -> dict[str, np.ndarray]:
    """Metrics (draws,) of counts (draws, bins), highest bins first; NaN where a class is missing.

    Args:
        positives, negatives: float64 (draws, bins).
        weight: (draws, bins), region weights, for AUPRO.
        regions: (draws,), their number.
        limit: of AUPRO.
    """
    tp, fp = positives.cumsum(-1), negatives.cumsum(-1)
    all_positives, all_negatives = tp[:, -1], fp[:, -1]
    above = fp - negatives
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {
            "auroc": formulas.roc_area(positives, above, fp, all_positives, all_negatives),
            "ap": formulas.average_precision(positives, tp, fp, all_positives),
            "f1_max": formulas.f1(tp, fp, all_positives[:, None]).max(-1),
        }
        if weight is not None:
            values["aupro"] = formulas.partial_area(weight, above, fp, regions, all_negatives, limit)
    values["mad"] = sum(values.values()) / len(values)
    one_class = (all_positives == 0) | (all_negatives == 0)
    return {name: np.where(one_class, np.nan, value) for name, value in values.items()}


def intervals_of_blocks(blocks: Iterable[dict[str, np.ndarray]], draws: Draws, unit: str) -> Intervals:
    """Return the interval of each metric from the blocks of :func:`binned_metrics`.

    ``unit`` begins the names.
    """
    blocks = list(blocks)
    return {
        f"{unit}_{name}": draws.interval(
            np.concatenate([block[name] for block in blocks]), "no draw with both"
        )
        for name in blocks[0]
    }


def missing_class(positives: float, negatives: float, unit: str) -> str:
    """Return the reason why metrics are undefined without a class, or ""."""
    try:
        require_both(positives, negatives, unit)
    except UndefinedMetric as missing:
        return missing.reason
    return ""
