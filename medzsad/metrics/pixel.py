"""Pixel metrics: every pixel of every image, pooled.

AUPRO is the area under the per-region overlap curve, exact. At a threshold, a region's overlap is the part
of it that is called anomalous; PRO is the mean over all regions of all images. PRO is drawn against the
false positive rate, over all normal pixels of all images (those of anomalous images too), and integrated
from FPR 0 to a limit, 0.3 by custom; the area is divided by the limit, so that 1 is perfect. (Bergmann et
al., "Uninformed Students", CVPR 2020; "The MVTec AD dataset", IJCV 2021.)

Giving every anomalous pixel the weight 1 / (size of its region) makes PRO a weighted true positive rate, so
one sort gives the whole curve, at every threshold there is. Conventions, where implementations differ:

- Regions are 8-connected in 2D and 26-connected in 3D.
- All thresholds are used. Many implementations take 200 between the lowest and the highest score, which is an
  approximation (commonly off by some 0.001, more where few thresholds fall below the limit).
- At the limit, the curve is interpolated linearly. Some implementations drop the thresholds beyond the limit
  without doing so, and rescale the FPR by the largest one kept.
- Ties make a slanted piece of curve, as in AUROC.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from medzsad.metrics import formulas
from medzsad.metrics.masks import pair_up, region_weights
from medzsad.metrics.ranking import Ranking, rank_sorted
from medzsad.metrics.undefined import Summary, UndefinedMetric, mean_of, value_of

Images = Iterable[Any]


def rank_pixels(maps: Images, masks: Images, *, regions: bool = True, unit: str = "pixel") -> Ranking:
    """Pools the pixels of all images and ranks them once, for every metric and curve.

    Memory: one sorted copy of all scores (4 bytes a pixel for float32 maps), and about 60 bytes per distinct
        score
    of an anomalous pixel. Time is that of the sort.

    Args:
        maps, masks: see :func:`medzsad.metrics.masks.pair_up`.
        regions: whether regions are needed (for AUPRO).
        unit: "pixel", or "voxel".

    Raises:
        ValueError: if maps and masks do not fit together, or a map holds NaN.
    """
    pieces, anomalous, weights, count = [], [], [], 0
    for scores, mask in pair_up(maps, masks):
        pieces.append(scores.reshape(-1))
        if not mask.any():
            continue
        anomalous.append(scores[mask])
        if regions:
            own, found = region_weights(mask)
            weights.append(own)
            count += found
    everything = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
    del pieces
    everything.sort()
    chosen = np.concatenate(anomalous).astype(everything.dtype) if anomalous else everything[:0]
    weight = (np.concatenate(weights) if weights else np.empty(0)) if regions else None
    return rank_sorted(everything, chosen, weight, count, unit=unit)


def pixel_metrics(
    maps: Images, masks: Images, *, fpr_limit: float = 0.3, threshold: float | None = None
) -> Summary:
    """All pixel metrics from one ranking.

    Args:
        maps, masks: see :func:`medzsad.metrics.masks.pair_up`.
        fpr_limit: where AUPRO ends.
        threshold: also report Dice at this threshold of the map.

    Returns:
        ``pixel_auroc``, ``pixel_ap``, ``pixel_f1_max``, ``pixel_aupro``, ``pixel_mad``, ``dice_best``,
        ``dice_best_threshold`` and, with a threshold, ``dice``: each a float, or
        :class:`~medzsad.metrics.undefined.Undefined` with the reason.
    """
    maps, masks = _reusable(maps, threshold), _reusable(masks, threshold)
    ranking = rank_pixels(maps, masks)
    summary = summarise_pixels(ranking, fpr_limit)
    if threshold is not None:
        summary["dice"] = value_of(lambda: dice(maps, masks, threshold))
    return summary


def summarise_pixels(ranking: Ranking, fpr_limit: float = 0.3) -> Summary:
    """Return the metrics of :func:`pixel_metrics`, without ``dice``, from a ranking with regions."""
    summary: Summary = {
        "pixel_auroc": value_of(ranking.auroc),
        "pixel_ap": value_of(ranking.ap),
        "pixel_f1_max": value_of(ranking.f1_max),
        "pixel_aupro": value_of(lambda: ranking.aupro(fpr_limit)),
    }
    summary["pixel_mad"] = mean_of(list(summary.values()))
    summary["dice_best"] = summary["pixel_f1_max"]
    summary["dice_best_threshold"] = value_of(lambda: ranking.best_f1()[1])
    return summary


def pixel_auroc(maps: Images, masks: Images) -> float:
    """Area under the ROC curve over all pixels, in [0, 1]; ties count half.

    Raises:
        UndefinedMetric: if there is no anomalous or no normal pixel. So do the others here.
    """
    return rank_pixels(maps, masks, regions=False).auroc()


def pixel_ap(maps: Images, masks: Images) -> float:
    """Average precision over all pixels, in [0, 1]."""
    return rank_pixels(maps, masks, regions=False).ap()


def pixel_f1_max(maps: Images, masks: Images) -> float:
    """Return the highest F1 over all pixels at one threshold, in [0, 1]."""
    return rank_pixels(maps, masks, regions=False).f1_max()


def best_dice(maps: Images, masks: Images) -> tuple[float, float]:
    """Return the highest Dice over all pixels (as :func:`pixel_f1_max`), and the threshold that gives it."""
    return rank_pixels(maps, masks, regions=False).best_f1()


def pixel_mad(maps: Images, masks: Images, *, fpr_limit: float = 0.3) -> float:
    """Mean of AUROC, AP, F1-max and AUPRO over pixels, in [0, 1] (HeadCLIP's mAD)."""
    ranking = rank_pixels(maps, masks)
    return (ranking.auroc() + ranking.ap() + ranking.f1_max() + ranking.aupro(fpr_limit)) / 4


def dice(maps: Images, masks: Images, threshold: float) -> float:
    """Dice over all pixels of ``map >= threshold`` and the masks: 2 tp / (P + tp + fp), in [0, 1].

    Raises:
        UndefinedMetric: if there is no anomalous pixel: an empty answer would be right, yet give 0 / 0.
    """
    tp = fp = positives = 0
    for scores, mask in pair_up(maps, masks):
        here, false = count_at(scores, mask, threshold)
        tp, fp, positives = tp + here, fp + false, positives + int(np.count_nonzero(mask))
    if not positives:
        raise UndefinedMetric("no anomalous pixel")
    return float(formulas.f1(tp, fp, positives))


def count_at(scores: np.ndarray, mask: np.ndarray, threshold: float) -> tuple[int, int]:
    """Anomalous and normal pixels with a score at or above the threshold."""
    called = scores >= float(threshold)
    tp = int(np.count_nonzero(called & mask))
    return tp, int(np.count_nonzero(called)) - tp


def _reusable(images: Images, threshold: float | None) -> Images:
    """Return the images, or a list of them where they can be read only once but are needed twice."""
    return list(images) if threshold is not None and iter(images) is images else images


def aupro(maps: Images, masks: Images, *, fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to ``fpr_limit``, divided by it: in [0, 1].

    By chance it is ``fpr_limit / 2``.

    Args:
        maps, masks: see :func:`medzsad.metrics.masks.pair_up`.
        fpr_limit: in (0, 1].

    Raises:
        UndefinedMetric: if there is no anomalous or no normal pixel.
        ValueError: for a limit outside (0, 1], NaN, or maps and masks that do not fit together.
    """
    return rank_pixels(maps, masks).aupro(fpr_limit)
