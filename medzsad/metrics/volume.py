"""Metrics of volumes: each case alone, their means, all voxels pooled, and lesions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from medzsad.metrics import formulas
from medzsad.metrics.lesionwise import LesionRule, find_lesions, lesion_metrics
from medzsad.metrics.masks import as_mask, match, pair_up
from medzsad.metrics.pixel import count_at, rank_pixels
from medzsad.metrics.ranking import rank
from medzsad.metrics.undefined import Summary, Undefined, Value, value_of


def case_metrics(
    anomaly_map: Any, label: Any, *, threshold: float | None = None, foreground: Any = None
) -> Summary:
    """Voxel metrics of one case.

    Args:
        anomaly_map: float (X, Y, Z), or any shape.
        label: its ground truth; see :func:`medzsad.metrics.masks.pair_up`.
        threshold: also report Dice at this threshold.
        foreground: bool, of the label's shape: only these voxels, and those of the label, are counted. Voxels
            of the label outside the foreground stay in, so that a map cut off there is not rewarded.

    Returns:
        ``auroc``, ``ap``, ``dice_best``, ``dice_best_threshold`` and, with a threshold, ``dice``: each a
        float, or :class:`~medzsad.metrics.undefined.Undefined` with the reason.

    Raises:
        ValueError: if the shapes do not fit together or the map holds NaN.
    """
    scores, truth = within(*match(anomaly_map, label), foreground)
    ranking = rank(scores, truth, unit="voxel")
    summary: Summary = {
        "auroc": value_of(ranking.auroc),
        "ap": value_of(ranking.ap),
        "dice_best": value_of(ranking.f1_max),
        "dice_best_threshold": value_of(lambda: ranking.best_f1()[1]),
    }
    if threshold is not None:
        tp, fp = count_at(scores, truth, threshold)
        found = ranking.positives
        summary["dice"] = float(formulas.f1(tp, fp, found)) if found else Undefined("no anomalous voxel")
    return summary


def volume_metrics(
    maps: Iterable[Any],
    labels: Iterable[Any],
    *,
    threshold: float | None = None,
    foregrounds: Iterable[Any] | None = None,
    lesions: LesionRule | None = None,
    spacings: Iterable[Sequence[float]] | None = None,
) -> Summary:
    """Metrics of a set of volumes: means over cases, all voxels pooled, and lesions.

    Args:
        maps, labels: as many; see :func:`medzsad.metrics.masks.pair_up`. All are held in memory for the
            pooled metrics: use :class:`~medzsad.metrics.histogram.ScoreHistogram` for those of a large set.
        threshold: also report Dice at this threshold.
        foregrounds: see :func:`case_metrics`; None for a case without one. Candidates outside it do not
            count.
        lesions: also report lesion-wise metrics by this rule.
        spacings: mm along each axis, per case, for ``lesions``.

    Returns:
        ``case_auroc``, ``case_ap``, ``case_dice_best`` and ``case_dice`` (means over the cases in which they
        are defined), ``voxel_auroc``, ``voxel_ap``, ``voxel_dice_best``, ``voxel_dice_best_threshold`` and
        ``voxel_dice`` (pooled), and those of :func:`~medzsad.metrics.lesionwise.lesion_metrics`.

    Raises:
        ValueError: if there are not as many of each, or they do not fit together.
    """
    pairs = list(pair_up(maps, labels))
    areas = _as_many(foregrounds, len(pairs), "foregrounds")
    sizes = _as_many(spacings, len(pairs), "spacings")
    cases, pooled, findings = [], [], []
    for (scores, truth), foreground, spacing in zip(pairs, areas, sizes, strict=True):
        cases.append(case_metrics(scores, truth, threshold=threshold, foreground=foreground))
        pooled.append(within(scores, truth, foreground))
        if lesions is not None:
            findings.append(find_lesions(cut_off(scores, truth, foreground), truth, lesions, spacing=spacing))
    names = [name for name in ("auroc", "ap", "dice_best", "dice") if name != "dice" or threshold is not None]
    summary: Summary = {f"case_{name}": mean_over_cases([case[name] for case in cases]) for name in names}
    one, other = [scores for scores, _ in pooled], [truth for _, truth in pooled]
    ranking = rank_pixels(one, other, regions=False, unit="voxel")
    summary["voxel_auroc"] = value_of(ranking.auroc)
    summary["voxel_ap"] = value_of(ranking.ap)
    summary["voxel_dice_best"] = value_of(ranking.f1_max)
    summary["voxel_dice_best_threshold"] = value_of(lambda: ranking.best_f1()[1])
    if threshold is not None:
        tp, fp = np.sum([count_at(*pair, threshold) for pair in pooled] or [(0, 0)], axis=0)
        found = ranking.positives
        summary["voxel_dice"] = (
            float(formulas.f1(tp, fp, found)) if found else Undefined("no anomalous voxel")
        )
    return summary | (lesion_metrics(findings) if lesions is not None else {})


def mean_over_cases(values: Sequence[Value]) -> Value:
    """Return the mean of those that are defined; undefined where none is."""
    defined = [value for value in values if not isinstance(value, Undefined)]
    if defined:
        return float(np.mean(defined))
    reasons = [value.reason for value in values if isinstance(value, Undefined)]
    return Undefined(f"no case in which it is defined: {reasons[0]}" if reasons else "no case")


def within(scores: np.ndarray, truth: np.ndarray, foreground: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels that count, as 1D arrays: foreground and label; all of them without a foreground."""
    if foreground is None:
        return scores.reshape(-1), truth.reshape(-1)
    inside = _foreground(truth, foreground) | truth
    return scores[inside], truth[inside]


def cut_off(scores: np.ndarray, truth: np.ndarray, foreground: Any) -> np.ndarray:
    """Return the map with -inf outside foreground and label."""
    if foreground is None:
        return scores
    return np.where(_foreground(truth, foreground) | truth, scores, scores.dtype.type(-np.inf))


def _as_many(values: Iterable[Any] | None, count: int, name: str) -> list[Any]:
    listed = [None] * count if values is None else list(values)
    if len(listed) != count:
        raise ValueError(f"{count} maps, but {len(listed)} {name}: give one per map")
    return listed


def _foreground(truth: np.ndarray, foreground: Any) -> np.ndarray:
    mask = as_mask(foreground)
    if mask.shape != truth.shape:
        raise ValueError(
            f"the foreground has shape {mask.shape}, the label {truth.shape}: they must be equal"
        )
    return mask
