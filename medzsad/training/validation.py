"""What is measured during training, with the metrics that evaluations use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate

from medzsad.datasets.catalog import by_class
from medzsad.detectors.base import DTYPES, AnomalyDetector, resize_maps
from medzsad.errors import BadInput
from medzsad.metrics.cumulative import PixelMetrics
from medzsad.metrics.image import image_metrics
from medzsad.metrics.undefined import Undefined
from medzsad.training.processes import Processes
from medzsad.training.sources import OpenedSource
from medzsad.training.training_set import InputFormat, TrainingSet

IMAGE = ("image_auroc", "image_ap", "image_f1_max", "image_mad")
PIXEL = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro", "pixel_mad")
Figures = dict[str, float | None]


class Validator:
    """Measures a detector on data sets: each class by itself, then the mean, as the papers do.

    Images are taken as in training, at the detector's size, masks too; of volumes each slice is an image.
    Texts call its class what evaluations have them call it. The processes share the images and put their
    results together. Pixels are counted in a histogram.

    Args:
        sources: the data sets.
        inputs: what the detector takes.
        batch_size: images at once.
        processes: which share the work.
    """

    def __init__(
        self,
        sources: Sequence[OpenedSource],
        inputs: InputFormat,
        *,
        batch_size: int = 4,
        processes: Processes | None = None,
    ) -> None:
        self.sets = [TrainingSet([source], inputs) for source in sources]
        self.batch_size = batch_size
        self.processes = processes or Processes()

    def __call__(self, detector: AnomalyDetector) -> dict[str, Figures]:
        """Figures of each data set, by what it is called in cards; None where undefined.

        Raises:
            BadInput: if an image cannot be read.
        """
        results: dict[str, Figures] = {}
        for one in self.sets:
            name = one.sources[0].claimed
            while name in results:  # the same set in another split
                name += f" ({one.sources[0].source.split})"
            classes: dict[str, list[int]] = {}
            for index, sample in enumerate(one.samples):
                classes.setdefault(sample.class_name, []).append(index)
            told = by_class(detector, one.sources[0].name, one.sources[0].layout, classes)
            found = [self._one_class(told[name], one, members) for name, members in classes.items()]
            results[name] = _mean(found)
        return results

    def _one_class(self, detector: AnomalyDetector, images: TrainingSet, members: list[int]) -> Figures:
        mine = members[self.processes.rank :: self.processes.world_size]
        has_masks = images.sources[0].level != "image"
        pixels = PixelMetrics("histogram")
        scores: list[float] = []
        labels: list[int] = []
        for start in range(0, len(mine), self.batch_size):
            batch = default_collate([images[index] for index in mine[start : start + self.batch_size]])
            maps, predicted = _predict(detector, batch["image"])
            scores += predicted
            labels += batch["label"].tolist()
            known = batch["has_mask"]  # an anomalous image without a mask is not one of normal pixels
            if has_masks and known.any():
                masks = batch["mask"][known]
                pixels(resize_maps(maps[known], tuple(masks.shape[-2:])), masks)
        parts = self.processes.gather((scores, labels))
        scores, labels = ([value for part in parts for value in part[i]] for i in range(2))
        found: dict[str, object] = dict(image_metrics(scores, labels))
        if has_masks:
            found |= pixels.aggregate()
        return {name: _number(found[name]) for name in (*IMAGE, *PIXEL) if name in found}


@torch.inference_mode()
def _predict(detector: AnomalyDetector, inputs: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    """Return the map (B, H, W) on the CPU, and image scores, of normalised images."""
    dtype = DTYPES.get(detector.precision)
    with torch.autocast(detector.device.type, dtype, enabled=dtype is not None):
        prediction = detector.detect(inputs.to(detector.device))
    return prediction.anomaly_map.float().clamp(0, 1).cpu(), prediction.image_score.float().cpu().tolist()


def _number(value: Any) -> float | None:
    number = math.nan if isinstance(value, Undefined) else float(value)
    return None if math.isnan(number) else number


def _mean(classes: list[Figures]) -> Figures:
    """Means over the classes in which a figure is defined."""
    names = dict.fromkeys(name for figures in classes for name in figures)
    return {name: _average(figures.get(name) for figures in classes) for name in names}


def _average(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def check_metric(sources: Sequence[OpenedSource], metric: str) -> None:
    """Find out by the labels, before the training, whether :func:`chosen_figure` will find its figure.

    Raises:
        BadInput: if it will not.
    """
    possible: dict[str, Figures] = {}
    for opened in sources:
        classes: dict[str, list[int]] = {}
        for sample in opened.samples:
            classes.setdefault(sample.class_name, []).append(sample.label)
        found = _mean([_defined(labels, opened.level) for labels in classes.values()])
        possible[f"{opened.claimed} ({opened.source.split})"] = found
    chosen_figure(possible, metric)


def _defined(labels: list[int], level: str) -> Figures:
    found = image_metrics([0.0] * len(labels), labels)
    figures = {name: _number(found[name]) for name in IMAGE}
    return figures | dict.fromkeys(PIXEL, 0.0 if level != "image" and any(labels) else None)


def chosen_figure(results: dict[str, Figures], metric: str) -> float:
    """Return the figure that decides which adapter is the best: the mean over the data sets that have it.

    Args:
        results: from a :class:`Validator`.
        metric: a figure's name, or ``"mad"`` for the mean of ``image_mad`` and ``pixel_mad``.

    Raises:
        BadInput: if no data set has it.
    """
    names = ("image_mad", "pixel_mad") if metric == "mad" else (metric,)
    value = _average(figures.get(name) for figures in results.values() for name in names)
    if value is None:
        raise BadInput(
            f"validation.metric {metric} is undefined on {', '.join(results)}: the images need both labels "
            "(and masks); choose another metric, or other sets"
        )
    return value
