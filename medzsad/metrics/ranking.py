"""Counts at every threshold that matters, exact, from one sort.

No argsort of all pixels: all scores are sorted alone (vectorised in numpy, for float32 about ten times as
fast as an argsort), the anomalous ones once more, and only the distinct anomalous scores are kept as
thresholds. Between two of them nothing changes but false positives, which no metric here gains from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medzsad.metrics import formulas
from medzsad.metrics.masks import as_mask, as_scores
from medzsad.metrics.undefined import UndefinedMetric


@dataclass(frozen=True)
class Ranking:
    """Counts at the K distinct scores of anomalous pixels (or images), highest first.

    Each method raises :class:`UndefinedMetric` where one of the two classes is missing.

    Attributes:
        thresholds: (K,), the scores; "called anomalous" means score >= threshold.
        new: float64 (K,), anomalous ones whose score is the threshold.
        tp, fp: float64 (K,), anomalous and normal ones at or above it.
        fp_above: float64 (K,), normal ones above it.
        positives, negatives: all anomalous and normal ones.
        weight: float64 (K,), the ``new`` ones counted as 1 / (size of their region); None if not asked for.
        regions: number of regions.
        unit: what is counted, for messages: "pixel", "voxel" or "image".
    """

    thresholds: np.ndarray
    new: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fp_above: np.ndarray
    positives: int
    negatives: int
    weight: np.ndarray | None = None
    regions: int = 0
    unit: str = "pixel"

    def require_both(self) -> None:
        """Raise :class:`UndefinedMetric` unless there are anomalous and normal ones."""
        require_both(self.positives, self.negatives, self.unit)

    def auroc(self) -> float:
        """Area under the ROC curve; see :func:`medzsad.metrics.formulas.roc_area`."""
        self.require_both()
        return float(
            formulas.roc_area(self.new, self.fp_above, self.fp, float(self.positives), float(self.negatives))
        )

    def ap(self) -> float:
        """Average precision; see :func:`medzsad.metrics.formulas.average_precision`."""
        self.require_both()
        return float(formulas.average_precision(self.new, self.tp, self.fp, self.positives))

    def f1_max(self) -> float:
        """Return the highest F1 of all thresholds: over pixels the same as the best Dice."""
        return self.best_f1()[0]

    def best_f1(self) -> tuple[float, float]:
        """Return the highest F1 and the threshold that gives it, the highest one where several do."""
        self.require_both()
        values = formulas.f1(self.tp, self.fp, self.positives)
        best = int(values.argmax())
        return float(values[best]), float(self.thresholds[best])

    def aupro(self, fpr_limit: float = 0.3) -> float:
        """Area under the per-region overlap curve; see :mod:`medzsad.metrics.pixel`."""
        limit = formulas.check_limit(fpr_limit)
        if self.weight is None:
            raise ValueError("this ranking was made without regions")
        self.require_both()
        return float(
            formulas.partial_area(
                self.weight, self.fp_above, self.fp, float(self.regions), float(self.negatives), limit
            )
        )


def require_both(positives: float, negatives: float, unit: str) -> None:
    """Raise :class:`UndefinedMetric` with the reason unless there are both anomalous and normal ones."""
    if not positives:
        raise UndefinedMetric(f"no anomalous {unit}")
    if not negatives:
        raise UndefinedMetric(f"no normal {unit}")


def rank(scores: Any, labels: Any, *, unit: str = "pixel") -> Ranking:
    """Ranks scores against labels.

    Args:
        scores: numbers, any shape; higher is more anomalous. Infinities are allowed.
        labels: as many labels; see :func:`medzsad.metrics.masks.as_mask`.
        unit: what one of them is, for messages.

    Raises:
        ValueError: if the shapes differ or a score is NaN.
    """
    values, truth = as_scores(scores), as_mask(labels)
    if values.shape != truth.shape:
        raise ValueError(f"{values.shape} scores, but {truth.shape} labels: give one label per score")
    return rank_sorted(np.sort(values, axis=None), values[truth], unit=unit)


def rank_sorted(
    everything: np.ndarray,
    anomalous: np.ndarray,
    weights: np.ndarray | None = None,
    regions: int = 0,
    *,
    unit: str = "pixel",
) -> Ranking:
    """Ranks scores that are sorted already. Needs about 60 bytes per distinct anomalous score.

    Args:
        everything: float (n,), all scores, ascending.
        anomalous: float (P,), those of them that are anomalous, in any order.
        weights: float64 (P,), a weight for each of ``anomalous``.
        regions: the sum of the weights.
        unit: what one of them is, for messages.

    Raises:
        ValueError: if a score is NaN.
    """
    if everything.size and np.isnan(everything[-1]):
        raise ValueError(
            f"the score of an {unit} is NaN" if unit == "image" else f"the score of a {unit} is NaN"
        )
    if weights is None:
        anomalous = np.sort(anomalous)
    else:
        order = np.argsort(anomalous)
        anomalous, weights = anomalous[order], weights[order]
    first = (
        np.flatnonzero(np.r_[True, anomalous[1:] != anomalous[:-1]]) if anomalous.size else np.empty(0, int)
    )
    values = anomalous[first]
    above = everything.size - np.searchsorted(everything, values, side="right")
    at_least = everything.size - np.searchsorted(everything, values, side="left")
    new = np.diff(np.r_[first, anomalous.size])
    tp = anomalous.size - first
    weight = None
    if weights is not None:
        weight = np.add.reduceat(weights, first)[::-1] if first.size else np.empty(0)
    return Ranking(
        thresholds=values[::-1],
        new=new[::-1].astype(np.float64),
        tp=tp[::-1].astype(np.float64),
        fp=(at_least - tp)[::-1].astype(np.float64),
        fp_above=(above - (tp - new))[::-1].astype(np.float64),
        positives=int(anomalous.size),
        negatives=int(everything.size - anomalous.size),
        weight=weight,
        regions=regions,
        unit=unit,
    )
