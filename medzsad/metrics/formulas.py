"""The formulas, on counts at falling thresholds. The last axis runs over thresholds, others over resamples.

Notation: at threshold t a pixel (or image) is called anomalous if its score >= t. ``tp`` and ``fp`` are the
anomalous and normal ones so called; ``new`` those anomalous ones whose score is t itself (or in bin t), and
``fp_above`` the normal ones above t, so ``fp - fp_above`` are tied with ``new``. P and N are all anomalous
and all normal ones. Thresholds that no anomalous score equals add nothing to any of the sums, and never raise
F1. Without a positive or a negative the result is NaN here; callers say why.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def roc_area(new: Any, fp_above: Any, fp: Any, positives: Any, negatives: Any) -> Any:
    """Area under the ROC curve: the chance that an anomalous score exceeds a normal one, ties counting half.

    In [0, 1], 0.5 by chance. The same as the trapezoidal area of scikit-learn's ``roc_auc_score``.
    """
    return partial_area(new, fp_above, fp, positives, negatives, 1.0)


def average_precision(new: Any, tp: Any, fp: Any, positives: Any) -> Any:
    """Sum over thresholds of (recall gained) * precision, without interpolation, as scikit-learn defines it.

    In [0, 1], P / (P + N) by chance.
    """
    return (new * precision(tp, fp)).sum(-1) / positives


def precision(tp: Any, fp: Any) -> Any:
    """Return tp / (tp + fp), and 1 where nothing is called anomalous."""
    called = tp + fp
    return np.where(called > 0, tp / np.maximum(called, 1), 1.0)


def f1(tp: Any, fp: Any, positives: Any) -> Any:
    """2 tp / (P + tp + fp): F1, or the Dice coefficient of the thresholded map and the mask. In [0, 1]."""
    return 2 * tp / (positives + tp + fp)


def partial_area(weight: Any, fp_above: Any, fp: Any, total: Any, negatives: Any, limit: float) -> Any:
    """Area between FPR 0 and ``limit`` under a curve that rises by ``weight / total`` at each threshold.

    A rise at FPR x reaches from there to the limit, and adds weight * (limit - x). Ties are a slanted piece
    from x0 to x1, which adds the mean of that over [x0, x1]; it is cut at the limit where it crosses it, as
    linear interpolation of the curve would. Divided by the limit, so a perfect curve gives 1.

    Args:
        weight: (..., K), the rises.
        fp_above, fp: (..., K), normal ones above, and at or above, the threshold.
        total: (...), the sum of all rises.
        negatives: (...), all normal ones.
        limit: FPR in (0, 1].
    """
    span = limit * negatives if np.ndim(negatives) == 0 else (limit * negatives)[..., None]
    width = fp - fp_above
    # (span - x) clipped at 0, averaged over x uniform in [fp_above, fp].
    reached = np.minimum(fp, span) - np.minimum(fp_above, span)
    left = np.maximum(span - fp_above, 0)
    mean = np.where(width > 0, reached * (left - reached / 2) / np.maximum(width, 1), left)
    return (weight * mean).sum(-1) / (total * limit * negatives)


def check_limit(limit: float) -> float:
    """Return the FPR limit.

    Raises:
        ValueError: unless it lies in (0, 1].
    """
    if not 0 < limit <= 1:
        raise ValueError(f"the FPR limit must lie in (0, 1], got {limit}")
    return float(limit)
