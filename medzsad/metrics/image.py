"""Image metrics: one score and one label per image."""

from __future__ import annotations

from typing import Any

from medzsad.metrics.ranking import Ranking, rank
from medzsad.metrics.undefined import Summary, mean_of, value_of


def rank_images(scores: Any, labels: Any) -> Ranking:
    """Ranks images once, for every metric and curve.

    Args:
        scores: (N,) numbers, higher is more anomalous.
        labels: (N,), 1 or True for anomalous.

    Raises:
        ValueError: if the shapes differ or a score is NaN.
    """
    return rank(scores, labels, unit="image")


def image_metrics(scores: Any, labels: Any) -> Summary:
    """All image metrics.

    Args:
        scores, labels: see :func:`rank_images`.

    Returns:
        ``image_auroc``, ``image_ap``, ``image_f1_max``, ``image_mad`` and ``image_f1_max_threshold``: each a
        float, or :class:`~medzsad.metrics.undefined.Undefined` with the reason.
    """
    ranking = rank_images(scores, labels)
    summary: Summary = {
        "image_auroc": value_of(ranking.auroc),
        "image_ap": value_of(ranking.ap),
        "image_f1_max": value_of(ranking.f1_max),
    }
    summary["image_mad"] = mean_of(list(summary.values()))
    summary["image_f1_max_threshold"] = value_of(lambda: ranking.best_f1()[1])
    return summary


def image_auroc(scores: Any, labels: Any) -> float:
    """Area under the ROC curve over images, in [0, 1]; ties count half.

    Raises:
        UndefinedMetric: if there is no anomalous or no normal image. So do the others here.
    """
    return rank_images(scores, labels).auroc()


def image_ap(scores: Any, labels: Any) -> float:
    """Average precision over images, in [0, 1]."""
    return rank_images(scores, labels).ap()


def image_f1_max(scores: Any, labels: Any) -> float:
    """Return the highest F1 over images at one threshold, in [0, 1]."""
    return rank_images(scores, labels).f1_max()


def image_mad(scores: Any, labels: Any) -> float:
    """Mean of AUROC, AP and F1-max over images, in [0, 1] (HeadCLIP's mAD)."""
    ranking = rank_images(scores, labels)
    return (ranking.auroc() + ranking.ap() + ranking.f1_max()) / 3
