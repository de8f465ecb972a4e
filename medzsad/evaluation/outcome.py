"""What an evaluation found: figures with intervals, bounds, or the reason why they are missing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from medzsad.datasets.claims import title
from medzsad.datasets.published import PublishedFigure, published_figures
from medzsad.datasets.samples import SampleSet
from medzsad.errors import certain
from medzsad.evaluation.settings import EvaluationSettings

# Level -> metric key -> column title, in the papers' order. "case" is the mean over volumes, "voxel" all
# voxels pooled; "image" on a set of volumes ranks whole volumes.
METRICS: dict[str, dict[str, str]] = {
    "image": {"auroc": "AUROC", "ap": "AP", "f1_max": "F1-max", "mad": "mAD"},
    "pixel": {
        "auroc": "AUROC",
        "ap": "AP",
        "f1_max": "F1-max",
        "aupro": "AUPRO",
        "mad": "mAD",
        "dice": "Dice",
    },
    "case": {"auroc": "AUROC", "ap": "AP", "dice_best": "best Dice", "dice": "Dice"},
    "voxel": {"auroc": "AUROC", "ap": "AP", "dice_best": "best Dice", "dice": "Dice"},
    "lesion": {"lesion_sensitivity": "sensitivity", "fp_per_scan": "FP per scan", "froc_mean": "FROC"},
}
LEVEL_TITLES = {
    "image": "image level",
    "pixel": "pixel level",
    "case": "mean over volumes",
    "voxel": "all voxels pooled",
    "lesion": "lesions",
}
NOT_PERCENT = ("fp_per_scan", "dice_best_threshold", "f1_max_threshold")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        value: None where it is undefined.
        interval: 95 % bootstrap interval, if there is one.
        bounds: between which the exact value surely lies; None where ``value`` is exact.
        reason: why it is undefined.
        spread: standard deviation over draws of which ``value`` is the mean; None where nothing was drawn.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    bounds: tuple[float, float] | None = None
    reason: str | None = None
    spread: float | None = None

    @classmethod
    def undefined(cls, reason: str) -> Figure:
        """Return a figure that cannot be computed."""
        return cls(None, reason=reason)

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable; absent fields are left out."""
        fields: dict[str, Any] = {"value": self.value}
        if self.interval is not None:
            fields["interval_95"] = list(self.interval)
        if self.bounds is not None:
            fields["bounds"] = list(self.bounds)
        if self.reason is not None:
            fields["undefined"] = self.reason
        if self.spread is not None:
            fields["spread"] = self.spread
        return fields

    def as_cells(self) -> list[Any]:
        """Return value, ends of the interval, bounds and reason, as tables of all figures have them."""
        return [self.value, *(self.interval or (None, None)), *(self.bounds or (None, None)), self.reason]


Figures = dict[str, dict[str, Figure]]
"""Level (see :data:`METRICS`) -> metric -> figure."""


@dataclass
class ClassOutcome:
    """One class (or one volumetric set) under one detector.

    Attributes:
        name: the class.
        class_name: what texts called it; None where the method has no texts.
        normal, anomalous: how many images (or volumes).
        figures: the figures.
        cases: figures and scores of each image or volume, JSON-serialisable.
        curves: level -> kind (roc, pr, pro, froc) -> two equally long lists, x and y.
        scores: image score and label of each image, for histograms.
    """

    name: str
    normal: int
    anomalous: int
    figures: Figures
    cases: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = field(default_factory=dict)
    scores: list[tuple[float, int]] = field(default_factory=list)
    class_name: str | None = None


@dataclass
class DetectorOutcome:
    """One detector on one data set.

    Attributes:
        name: the detector.
        reference: whether it is one of the trivial references.
        zero_shot: False if the detector was trained on images of this data set.
        classes: in the data set's order.
        mean: mean over the classes (the papers' last row); the class itself if there is one.
        settings: the detector's; ``class_name`` is what its texts called the images: one name, or class to
            name where they differ.
        framing: what it was shown of the images.
        threshold: that Dice and lesions were computed at.
        mode: ``"exact"`` or ``"histogram"``.
        seconds: it took.
        reused: how many predictions came from an earlier run.
    """

    name: str
    reference: bool
    zero_shot: bool
    classes: list[ClassOutcome]
    mean: Figures
    settings: dict[str, Any] = field(default_factory=dict)
    framing: str = "whole"
    threshold: float = 0.5
    mode: str = "exact"
    seconds: float = 0.0
    reused: int = 0


@dataclass
class Evaluation:
    """Everything that an evaluation found.

    Attributes:
        dataset: the data set's name.
        level: ``"image"``, ``"pixel"`` or ``"voxel"``.
        layout: how its folder was laid out.
        samples: how many images or volumes.
        detectors: the outcome of each detector, references last.
        published: what publications report for the set; nothing for samples that may be no part of it.
        settings: of the evaluation.
        notes: what the reader should know about the data.
        versions: of the software.
        doubt: why the samples cannot be taken for the data set (:attr:`SampleSet.doubt`).
    """

    dataset: str
    level: str
    layout: str
    samples: int
    detectors: list[DetectorOutcome]
    published: list[PublishedFigure]
    settings: EvaluationSettings
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    doubt: str = ""

    @property
    def title(self) -> str:
        """What the figures are of: see :func:`medzsad.datasets.claims.title`."""
        return title(self.dataset, self.doubt, self.level)


def published_beside(samples: SampleSet) -> list[PublishedFigure]:
    """Return the published figures that may stand beside those of the samples: of their set, if it is it."""
    return [] if samples.doubt else published_figures(samples.name)


def mean_figures(classes: list[ClassOutcome]) -> Figures:
    """Means over the classes; undefined if undefined in any class, with the first reason.

    Intervals of a mean are not made from those of the classes; bounds are.
    """
    if len(classes) == 1:
        return classes[0].figures
    means: Figures = {}
    for level, metrics in classes[0].figures.items():
        means[level] = {}
        for metric in metrics:
            figures = [one.figures[level][metric] for one in classes]
            absent = [(one.name, f) for one, f in zip(classes, figures, strict=True) if f.value is None]
            if absent:
                name, figure = absent[0]
                means[level][metric] = Figure.undefined(f"{name}: {figure.reason}")
                continue
            values = [certain(figure.value) for figure in figures]
            bounds = None
            if any(figure.bounds for figure in figures):
                pairs = [f.bounds or (value, value) for f, value in zip(figures, values, strict=True)]
                low, high = (math.fsum(side) / len(pairs) for side in zip(*pairs, strict=True))
                bounds = (low, high)
            value = math.fsum(values) / len(figures)
            means[level][metric] = Figure(value, bounds=bounds)
    return means
