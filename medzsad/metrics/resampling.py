"""Intervals of pixel metrics: images are reduced to counts in common bins, which draws add up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from medzsad.metrics import formulas
from medzsad.metrics.bootstrap import Draws, Intervals, binned_metrics, intervals_of_blocks, missing_class
from medzsad.metrics.masks import match, pair_up, region_weights
from medzsad.metrics.pixel import count_at
from medzsad.metrics.undefined import Undefined

# Scores that the bins of pixel_intervals are chosen from.
SAMPLE = 1_000_000


class PerImageCounts:
    """Counts of each image's pixels in common bins; takes 16 bytes per bin and image.

    Args:
        edges: rising inner edges of the bins: a score s is in bin ``searchsorted(edges, s, side="right")``. A
            number n means n equal bins of [0, 1]. Scores beyond the ends are in the first or last bin.
            Metrics see scores in one bin as equal, so edges should be dense where scores are (see
            :func:`quantile_edges`).
        threshold: count also for Dice at this threshold.
        unit: "pixel" or "voxel".

    Raises:
        ValueError: if the edges do not rise.
    """

    def __init__(
        self, edges: int | np.ndarray = 1024, *, threshold: float | None = None, unit: str = "pixel"
    ) -> None:
        inner = (
            np.linspace(0, 1, edges + 1)[1:-1] if isinstance(edges, int) else np.asarray(edges, np.float64)
        )
        if inner.ndim != 1 or not (np.diff(inner) > 0).all():
            raise ValueError("the edges of bins must be a rising list of numbers")
        self.edges = inner
        self.threshold = threshold
        self.unit = unit
        self._positives: list[np.ndarray] = []
        self._negatives: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []
        self._regions: list[int] = []
        self._called: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._regions)

    def add(self, anomaly_map: Any, mask: Any) -> None:
        """Count one image or volume; see :func:`medzsad.metrics.masks.pair_up`."""
        scores, truth = match(anomaly_map, mask)
        inside = scores[truth]
        weights, regions = region_weights(truth)
        order = np.argsort(inside)
        everything, inside = np.sort(scores, axis=None), inside[order]
        # Where the edges fall among sorted scores is found much faster than the bin of each score.
        positives = np.diff(np.r_[0, np.searchsorted(inside, self.edges), inside.size])
        total = np.diff(np.r_[0, np.searchsorted(everything, self.edges), everything.size])
        ends = np.r_[0, positives.cumsum()]
        summed = np.diff(np.r_[0, weights[order].cumsum()][ends])
        self._positives.append(positives.astype(np.uint32))
        self._negatives.append((total - positives).astype(np.uint32))
        self._weights.append(summed)
        self._regions.append(regions)
        self._called.append((0, 0) if self.threshold is None else count_at(scores, truth, self.threshold))

    def __add__(self, other: PerImageCounts) -> PerImageCounts:
        """Return the counts of both sets of images.

        Raises:
            ValueError: if the two were made with different settings.
        """
        if not isinstance(other, PerImageCounts):
            return NotImplemented
        mine, theirs = (self.threshold, self.unit), (other.threshold, other.unit)
        if mine != theirs or not np.array_equal(self.edges, other.edges):
            raise ValueError("counts of different bins or thresholds cannot be added")
        total = PerImageCounts(self.edges, threshold=self.threshold, unit=self.unit)
        for name in ("_positives", "_negatives", "_weights", "_regions", "_called"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    def intervals(self, draws: Draws | None = None, *, fpr_limit: float = 0.3) -> Intervals:
        """Intervals of the metrics over the images added so far.

        Args:
            draws: how to resample.
            fpr_limit: where AUPRO ends.

        Returns:
            ``pixel_auroc``, ``pixel_ap``, ``pixel_f1_max``, ``pixel_aupro``, ``pixel_mad``, ``dice_best``
            and, with a threshold, ``dice``.
        """
        draws, limit = draws or Draws(), formulas.check_limit(fpr_limit)
        names = [f"{self.unit}_{name}" for name in ("auroc", "ap", "f1_max", "aupro", "mad")] + ["dice_best"]
        names += ["dice"] if self.threshold is not None else []
        positives, negatives, weights = (
            np.array(lists, np.float64)[:, ::-1] if lists else np.zeros((0, 1))
            for lists in (self._positives, self._negatives, self._weights)
        )
        if reason := missing_class(positives.sum(), negatives.sum(), self.unit):
            return dict.fromkeys(names, Undefined(reason))
        regions, called = np.array(self._regions, np.float64), np.array(self._called, np.float64)
        blocks = []
        for counts in draws.counts(len(self), len(self.edges) + 1):
            drawn = counts @ positives
            block = binned_metrics(drawn, counts @ negatives, counts @ weights, counts @ regions, limit)
            if self.threshold is not None:
                tp, fp = (counts @ called).T
                with np.errstate(invalid="ignore"):
                    dice = formulas.f1(tp, fp, drawn.sum(-1))
                block["dice"] = np.where(drawn.sum(-1) > 0, dice, np.nan)
            blocks.append(block)
        found = intervals_of_blocks(blocks, draws, self.unit)
        found["dice_best"] = found[f"{self.unit}_f1_max"]
        if self.threshold is not None:
            found["dice"] = found.pop(f"{self.unit}_dice")
        return {name: found[name] for name in names}


def quantile_edges(scores: np.ndarray, anomalous: np.ndarray, bins: int = 2048) -> np.ndarray:
    """Edges of about ``bins`` bins: half of them quantiles of all scores, half of the anomalous ones.

    Average precision and F1 are decided where the anomalous scores are, which may be a thousandth of all.

    Args:
        scores: (n,), all of them or a sample.
        anomalous: (P,), likewise.
        bins: how many at most.
    """
    parts = [part for part in (scores, anomalous) if part.size]
    at = np.linspace(0, 1, bins // 2 + 1)[1:-1]
    quantiles = [np.quantile(part.astype(np.float64), at, method="nearest") for part in parts]
    return np.unique(np.concatenate(quantiles)) if quantiles else np.empty(0)


def pixel_intervals(
    maps: Iterable[Any],
    masks: Iterable[Any],
    draws: Draws | None = None,
    *,
    fpr_limit: float = 0.3,
    threshold: float | None = None,
    bins: int = 2048,
    unit: str = "pixel",
) -> Intervals:
    """Intervals of the pixel metrics over images; see :class:`PerImageCounts`.

    The metrics of each draw are those of scores rounded to ``bins`` bins between quantiles of this set's
    scores, which moves an interval by far less than its width.

    Args:
        maps, masks: see :func:`medzsad.metrics.masks.pair_up`. Both are read twice.
        draws: how to resample.
        fpr_limit: where AUPRO ends.
        threshold: also for Dice at this threshold.
        bins: how many.
        unit: "pixel" or "voxel".
    """
    maps, masks = (list(images) if iter(images) is images else images for images in (maps, masks))
    edges = quantile_edges(*_sample(pair_up(maps, masks)), bins)
    counts = PerImageCounts(edges, threshold=threshold, unit=unit)
    for scores, mask in pair_up(maps, masks):
        counts.add(scores, mask)
    return counts.intervals(draws, fpr_limit=fpr_limit)


def _sample(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Evenly picked scores of all pixels and of anomalous ones, at most about :data:`SAMPLE` of either."""
    everything, anomalous = _Picker(), _Picker()
    for scores, mask in pairs:
        everything.add(scores.reshape(-1))
        anomalous.add(scores[mask])
    return everything.picked(), anomalous.picked()


class _Picker:
    """Every n-th of a stream of numbers; n doubles whenever too many have come together."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = [np.empty(0)]
        self.size, self.step = 0, 1

    def add(self, values: np.ndarray) -> None:
        self.pieces.append(values[:: self.step].copy())
        self.size += self.pieces[-1].size
        if self.size > SAMPLE:
            self.pieces = [self.picked()[::2]]
            self.size, self.step = self.pieces[0].size, self.step * 2

    def picked(self) -> np.ndarray:
        return np.concatenate(self.pieces)
