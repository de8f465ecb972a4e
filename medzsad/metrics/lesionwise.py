"""Lesions found and false alarms per scan, at one threshold and as a FROC curve.

Candidates are the 26-connected components of ``map >= threshold``; a candidate's score is its highest voxel.
Lesions are the 26-connected components of the label. A lesion is found by a candidate that overlaps it enough
(one voxel, by default), and its score is the highest of those candidates'. A candidate that overlaps no
lesion is a false positive; one that touches a lesion too little, or only one below the minimum size, is
neither.

Raising the cut on candidate scores gives the FROC curve: sensitivity over all lesions against false positives
per scan (scans without lesions count as scans). The sensitivities at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false
positives per scan and their mean are LUNA16's (Setio et al., Medical Image Analysis 2017). Here each is the
highest sensitivity of a cut with at most so many false positives, which can be had; LUNA16's script
interpolates between cuts. The map must be cut low enough that candidates exist, and high enough that lesions
do not merge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medzsad.metrics.masks import label_regions, match
from medzsad.metrics.undefined import Summary, Undefined, UndefinedMetric, Value

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class LesionRule:
    """When a lesion counts, and when it is found.

    Attributes:
        threshold: of the map; candidates are where it is reached.
        min_lesion_mm3: lesions smaller than this are ignored (with a spacing of 1 mm these are voxels).
        min_overlap: least overlap, in [0, 1]; one voxel is needed in any case.
        overlap: what ``min_overlap`` is a part of: "lesion" (voxels shared / voxels of the lesion) or "iou"
            (voxels shared / voxels of either).
    """

    threshold: float
    min_lesion_mm3: float = 0.0
    min_overlap: float = 0.0
    overlap: Literal["lesion", "iou"] = "lesion"

    def __post_init__(self) -> None:
        if not 0 <= self.min_overlap <= 1:
            raise ValueError(f"the least overlap must lie in [0, 1], got {self.min_overlap}")
        if self.overlap not in ("lesion", "iou"):
            raise ValueError(f'overlap must be "lesion" or "iou", got {self.overlap!r}')


@dataclass(frozen=True)
class CaseFindings:
    """What lesion-wise metrics need of one scan; a few numbers, so thousands of scans fit.

    Attributes:
        lesion_scores: float64 (lesions,), the score of each lesion; -inf where no candidate found it.
        false_positive_scores: float64 (false positives,).
    """

    lesion_scores: np.ndarray
    false_positive_scores: np.ndarray


@dataclass(frozen=True)
class Froc:
    """A FROC curve: one point per distinct candidate score, highest first; a staircase, not to be slanted.

    Attributes:
        thresholds: float64 (n,), cuts on candidate scores; the first is inf (nothing is reported).
        false_positives: float64 (n,), per scan.
        sensitivity: float64 (n,), in [0, 1].
    """

    thresholds: np.ndarray
    false_positives: np.ndarray
    sensitivity: np.ndarray

    def at(self, rate: float) -> float:
        """Return the highest sensitivity with at most ``rate`` false positives per scan."""
        return float(self.sensitivity[np.searchsorted(self.false_positives, rate, side="right") - 1])


def find_lesions(
    anomaly_map: Any, label: Any, rule: LesionRule, *, spacing: Sequence[float] | None = None
) -> CaseFindings:
    """Match candidates and lesions of one scan.

    Args:
        anomaly_map: float (X, Y, Z), or 2D.
        label: its ground truth; see :func:`medzsad.metrics.masks.pair_up`.
        rule: what counts.
        spacing: mm along each axis of the label; 1 if not given.

    Raises:
        ValueError: if the shapes do not fit together or the map holds NaN.
    """
    scores, truth = match(anomaly_map, label)
    if spacing is not None and len(spacing) != scores.ndim:
        raise ValueError(f"need a spacing for each of {scores.ndim} axes, got {tuple(spacing)}")
    candidates, _ = label_regions(scores >= float(rule.threshold))
    return match_candidates(candidates, scores, truth, rule, spacing=spacing)


def match_candidates(
    candidates: np.ndarray,
    scores: np.ndarray,
    truth: np.ndarray,
    rule: LesionRule,
    *,
    spacing: Sequence[float] | None = None,
) -> CaseFindings:
    """Match candidates that are known already, such as those that a prediction lists, with the lesions.

    Args:
        candidates: int (X, Y, Z), the number of each voxel's candidate from 1 on, 0 outside.
        scores: float (X, Y, Z), the map, of which a candidate's highest value is its score.
        truth: bool (X, Y, Z), ground truth.
        rule: what counts; its threshold is not used.
        spacing: see :func:`find_lesions`.
    """
    voxel_mm3 = math.prod(spacing) if spacing is not None else 1.0
    lesions, count = label_regions(truth)
    called, many = candidates > 0, int(candidates.max(initial=0))
    heights = np.full(many + 1, -np.inf)
    np.maximum.at(heights, candidates[called], scores[called])
    candidate_sizes = np.bincount(candidates[called], minlength=many + 1)
    lesion_sizes = np.bincount(lesions[truth], minlength=count + 1)

    both = called & truth
    codes, shared = np.unique(
        candidates[both].astype(np.int64) * (count + 1) + lesions[both], return_counts=True
    )
    candidate, lesion = np.divmod(codes, count + 1)
    whole = lesion_sizes[lesion]
    if rule.overlap == "iou":
        whole = whole + candidate_sizes[candidate] - shared
    enough = shared >= rule.min_overlap * whole
    lesion_scores = np.full(count + 1, -np.inf)
    np.maximum.at(lesion_scores, lesion[enough], heights[candidate[enough]])
    counted = np.flatnonzero(lesion_sizes * voxel_mm3 >= rule.min_lesion_mm3)
    false = np.setdiff1d(np.arange(1, many + 1), candidate)
    return CaseFindings(lesion_scores[counted[counted > 0]], heights[false])


def froc_curve(cases: Sequence[CaseFindings]) -> Froc:
    """Return the FROC curve of a set of scans.

    Raises:
        UndefinedMetric: if there is no scan, or no lesion in any.
    """
    lesions = np.sort(_joined([case.lesion_scores for case in cases]))
    false = np.sort(_joined([case.false_positive_scores for case in cases]))
    if not lesions.size:
        raise UndefinedMetric("no lesion in any scan" if cases else "no scan")
    found = lesions[lesions > -np.inf]
    thresholds = np.unique(np.r_[found, false])
    sensitivity = (lesions.size - np.searchsorted(lesions, thresholds)) / lesions.size
    alarms = (false.size - np.searchsorted(false, thresholds)) / len(cases)
    return Froc(np.r_[np.inf, thresholds[::-1]], np.r_[0, alarms[::-1]], np.r_[0, sensitivity[::-1]])


def lesion_metrics(cases: Sequence[CaseFindings], rates: Sequence[float] = RATES) -> Summary:
    """Lesion-wise metrics of a set of scans.

    Returns:
        ``lesion_sensitivity`` and ``fp_per_scan`` with all candidates; ``froc_0.125`` ... ``froc_8``, the
        sensitivities at those false positives per scan; ``froc_mean``, their mean. Each a float, or
        ``Undefined`` with the reason (false positives per scan need no lesion).
    """
    names = ["lesion_sensitivity", "fp_per_scan", *(f"froc_{rate:g}" for rate in rates), "froc_mean"]
    alarms = sum(case.false_positive_scores.size for case in cases)
    per_scan: Value = alarms / len(cases) if cases else Undefined("no scan")
    try:
        curve = froc_curve(cases)
    except UndefinedMetric as missing:
        return dict.fromkeys(names, Undefined(missing.reason)) | {"fp_per_scan": per_scan}
    values = [curve.at(rate) for rate in rates]
    return dict(
        zip(names, [float(curve.sensitivity[-1]), per_scan, *values, float(np.mean(values))], strict=True)
    )


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0)
