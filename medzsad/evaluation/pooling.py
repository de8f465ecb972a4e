"""Pixels of many images, pooled: exact while they fit into memory, counted in bins beyond that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medzsad.errors import certain
from medzsad.evaluation.outcome import ClassOutcome, Figure
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.metrics.bootstrap import Draws, Interval, Intervals, image_intervals
from medzsad.metrics.bounds import Bounded
from medzsad.metrics.curves import Curve, pr_curve, pro_curve, roc_curve
from medzsad.metrics.histogram import ScoreHistogram
from medzsad.metrics.image import image_metrics, rank_images
from medzsad.metrics.pixel import dice, rank_pixels, summarise_pixels
from medzsad.metrics.ranking import Ranking
from medzsad.metrics.resampling import PerImageCounts, pixel_intervals, quantile_edges
from medzsad.metrics.undefined import Undefined, UndefinedMetric, value_of

# The bins of a large set's intervals are chosen from about so many of the images held until then.
FIRST_IMAGES = 32
EVEN_BINS = 1024
CURVE_POINTS = 500

Points = dict[str, tuple[list[float], list[float]]]


@dataclass
class PixelPool:
    """Collects maps and masks of one class and gives its pixel (or voxel) figures.

    Args:
        settings: the evaluation's.
        threshold: of the map, for Dice.
        unit: ``"pixel"`` or ``"voxel"``.
        regions: whether AUPRO is wanted.
        draws: of the bootstrap; None for no intervals.
    """

    settings: EvaluationSettings
    threshold: float
    unit: str = "pixel"
    regions: bool = True
    draws: Draws | None = None
    pixels: int = 0
    _maps: list[np.ndarray] = field(default_factory=list)
    _masks: list[np.ndarray] = field(default_factory=list)
    _histogram: ScoreHistogram | None = None
    _counts: PerImageCounts | None = None

    @property
    def mode(self) -> str:
        """``"exact"`` or ``"histogram"``."""
        return "exact" if self._histogram is None else "histogram"

    def add(self, anomaly_map: np.ndarray, mask: np.ndarray) -> None:
        """Add one image: float32 map in [0, 1] and bool mask, of the same shape."""
        self.pixels += mask.size
        if self._histogram is not None:
            self._count(anomaly_map, mask)
            return
        self._maps.append(anomaly_map)
        self._masks.append(mask)
        enough = self.settings.mode == "histogram" and len(self._maps) >= FIRST_IMAGES
        too_many = self.settings.mode == "auto" and self.pixels > self.settings.exact_pixels
        if enough or too_many:
            self._switch()

    def finish(self) -> tuple[dict[str, Figure], Points]:
        """Return the figures by metric, and the points of the curves."""
        if self.settings.mode == "histogram" and self._histogram is None:
            self._switch()
        values: dict[str, float | Bounded | Undefined]
        if self._histogram is None:
            ranking = rank_pixels(self._maps, self._masks, regions=self.regions, unit=self.unit)
            summary = summarise_pixels(ranking, self.settings.fpr_limit) if self.regions else _plain(ranking)
            values = {**summary}
            values["dice"] = value_of(lambda: dice(self._maps, self._masks, self.threshold))
            curves = curves_of(ranking, self.settings.fpr_limit)
        else:
            values = {**self._histogram.metrics(fpr_limit=self.settings.fpr_limit)}
            curves = curves_of(_binned_ranking(self._histogram), self.settings.fpr_limit)
        intervals = self._intervals()
        prefix = f"{self.unit}_"
        figures = {
            name.removeprefix(prefix): figure_of(value, intervals.get(name)) for name, value in values.items()
        }
        self._maps, self._masks = [], []
        return figures, curves

    def _intervals(self) -> Intervals:
        if self.draws is None:
            return {}
        if self._counts is not None:
            return self._counts.intervals(self.draws, fpr_limit=self.settings.fpr_limit)
        return pixel_intervals(
            self._maps,
            self._masks,
            self.draws,
            fpr_limit=self.settings.fpr_limit,
            threshold=self.threshold,
            unit=self.unit,
        )

    def _switch(self) -> None:
        """From keeping everything to counting."""
        self._histogram = ScoreHistogram(threshold=self.threshold, regions=self.regions, unit=self.unit)
        if self.draws is not None:
            every = max(1, len(self._maps) // FIRST_IMAGES)
            first = self._maps[::every], self._masks[::every]
            step = max(1, sum(m.size for m in first[0]) // 2_000_000)
            scores = np.concatenate([m.reshape(-1)[::step] for m in first[0]])
            anomalous = np.concatenate([m[mask] for m, mask in zip(*first, strict=True)])
            # The first images are often all normal: even bins stand by for the scores of the others.
            edges = np.union1d(quantile_edges(scores, anomalous), np.linspace(0, 1, EVEN_BINS + 1)[1:-1])
            self._counts = PerImageCounts(edges, threshold=self.threshold, unit=self.unit)
        maps, masks, self._maps, self._masks = self._maps, self._masks, [], []
        for anomaly_map, mask in zip(maps, masks, strict=True):
            self._count(anomaly_map, mask)

    def _count(self, anomaly_map: np.ndarray, mask: np.ndarray) -> None:
        certain(self._histogram).add(anomaly_map, mask)
        if self._counts is not None:
            self._counts.add(anomaly_map, mask)


def image_level(
    name: str, cases: list[dict[str, Any]], draws: Draws | None, *, class_name: str | None
) -> ClassOutcome:
    """Return the outcome of a class with the figures of its images, or whole volumes, by their scores.

    Args:
        name: of the class.
        cases: ``score`` and ``label`` of each, and whatever else is told of it.
        draws: of the bootstrap; None for no intervals.
        class_name: what texts called the class.
    """
    scores, labels = [case["score"] for case in cases], [case["label"] for case in cases]
    intervals = image_intervals(scores, labels, draws) if draws is not None else {}
    figures = {
        key.removeprefix("image_"): figure_of(value, intervals.get(key))
        for key, value in image_metrics(scores, labels).items()
    }
    return ClassOutcome(
        name,
        labels.count(0),
        labels.count(1),
        {"image": figures},
        cases=cases,
        curves={"image": curves_of(rank_images(scores, labels))},
        scores=list(zip(scores, labels, strict=True)),
        class_name=class_name,
    )


def figure_of(value: float | Bounded | Undefined, interval: Interval | Undefined | None = None) -> Figure:
    """Return a metric's value as a figure."""
    if isinstance(value, Undefined):
        return Figure.undefined(value.reason)
    ends = (interval.low, interval.high) if isinstance(interval, Interval) else None
    if isinstance(value, Bounded):
        bounds = None if value.lower == value.upper else (value.lower, value.upper)
        return Figure(value.value, ends, bounds)
    return Figure(float(value), ends)


def curves_of(ranking: Ranking, fpr_limit: float | None = None) -> Points:
    """ROC, PR and, with regions, PRO of a ranking; none where a class is missing."""
    try:
        curves = {"roc": roc_curve(ranking, CURVE_POINTS), "pr": pr_curve(ranking, CURVE_POINTS)}
        if ranking.weight is not None and fpr_limit is not None:
            curves["pro"] = pro_curve(ranking, fpr_limit, CURVE_POINTS)
    except UndefinedMetric:
        return {}
    return {kind: points_of(curve) for kind, curve in curves.items()}


def points_of(curve: Curve) -> tuple[list[float], list[float]]:
    """Return x and y as lists, rounded to what a drawing shows."""
    return [round(float(x), 6) for x in curve.x], [round(float(y), 6) for y in curve.y]


def _plain(ranking: Ranking) -> dict[str, float | Undefined]:
    unit = ranking.unit
    return {
        f"{unit}_auroc": value_of(ranking.auroc),
        f"{unit}_ap": value_of(ranking.ap),
        "dice_best": value_of(ranking.f1_max),
        "dice_best_threshold": value_of(lambda: ranking.best_f1()[1]),
    }


def _binned_ranking(histogram: ScoreHistogram) -> Ranking:
    """Return the ranking of scores rounded to their bins, for drawing."""
    positives, negatives = histogram.positives[::-1].astype(float), histogram.negatives[::-1].astype(float)
    used = positives > 0
    fp = negatives.cumsum()
    edges = np.linspace(*histogram.limits, positives.size + 1)[:-1][::-1]
    return Ranking(
        thresholds=edges[used],
        new=positives[used],
        tp=positives.cumsum()[used],
        fp=fp[used],
        fp_above=(fp - negatives)[used],
        positives=int(positives.sum()),
        negatives=int(negatives.sum()),
        weight=histogram.weight[::-1][used] if histogram.has_regions else None,
        regions=histogram.regions,
        unit=histogram.unit,
    )
