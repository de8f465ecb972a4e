"""One detector on a set of 2D images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medzsad.datasets.catalog import by_class
from medzsad.datasets.images import resize_mask
from medzsad.datasets.samples import Sample, SampleSet
from medzsad.detectors.base import resize_maps
from medzsad.evaluation.image_predictions import is_shown_grey, predict_images
from medzsad.evaluation.outcome import ClassOutcome, Figure
from medzsad.evaluation.pooling import PixelPool, curves_of, figure_of
from medzsad.evaluation.prediction_cache import PredictionCache
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.metrics.bootstrap import Draws, image_intervals
from medzsad.metrics.image import image_metrics, rank_images
from medzsad.metrics.ranking import rank
from medzsad.metrics.undefined import value_of

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

Keep = Callable[[Sample, np.ndarray], None]


def evaluate_images(
    detector: AnomalyDetector,
    samples: SampleSet,
    settings: EvaluationSettings,
    *,
    framing: str,
    threshold: float,
    cache: PredictionCache,
    batch_size: int = 1,
    keep: Keep | None = None,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> tuple[list[ClassOutcome], str]:
    """Evaluate a detector class by class.

    Args:
        detector: the detector; its texts speak of each class in turn.
        samples: 2D images, with masks where ``samples.level`` is ``"pixel"``.
        settings: the evaluation's.
        framing: ``"whole"`` or ``"foreground"``.
        threshold: of the map, for Dice.
        cache: of predictions.
        batch_size: images at once.
        keep: gets each sample and its map, float32 (H, W), at the image's own size, to store it.
        progress: wraps the samples, e.g. ``tqdm``; gets ``total``.

    Returns:
        The outcome of each class, in order, and ``"exact"`` or ``"histogram"``.

    Raises:
        BadInput: if an image or a mask cannot be read.
    """
    rule = settings.for_set(samples.name).masks
    steps = iter(progress(samples, total=len(samples)) if progress else samples)
    outcomes, modes = [], set()
    told = by_class(detector, samples.name, samples.layout, samples.classes, class_name=settings.class_name)
    for name in samples.classes:
        members = [sample for sample in samples.images if sample.class_name == name]
        predictions = predict_images(
            told[name],
            [s.image for s in members],
            framing=framing,
            cache=cache.of(told[name]),
            batch_size=batch_size,
            grey=is_shown_grey(detector, samples.name),
        )
        draws = settings.draws(len(members))
        pool = PixelPool(settings, threshold, draws=draws) if samples.level == "pixel" else None
        cases, scores, labels = [], [], []
        for sample, prediction in zip(members, predictions, strict=True):
            next(steps, None)
            case: dict[str, Any] = {
                "id": sample.id,
                "kind": sample.kind,
                "label": sample.label,
                "score": prediction.score,
                "probability": prediction.probability,
            }
            scores.append(prediction.score)
            labels.append(sample.label)
            if pool is not None:
                mask = sample.read_mask(rule)
                anomaly_map, mask = on_grid(prediction.anomaly_map, mask, settings.size, rule)
                pool.add(anomaly_map, mask)
                case |= _case_figures(anomaly_map, mask)
            if keep is not None:
                keep(sample, prediction.anomaly_map)
            cases.append(case)
        outcome = _image_level(name, scores, labels, draws)
        outcome.cases, outcome.class_name = cases, told[name].class_name
        if pool is not None:
            figures, curves = pool.finish()
            figures["best_dice"] = figures.pop("dice_best")
            outcome.figures["pixel"], outcome.curves["pixel"] = figures, curves
            modes.add(pool.mode)
        outcomes.append(outcome)
    for _ in steps:  # lets a progress bar end
        pass
    return outcomes, "histogram" if "histogram" in modes else "exact"


def on_grid(
    anomaly_map: np.ndarray, mask: np.ndarray, size: int | None, rule: str = "half"
) -> tuple[np.ndarray, np.ndarray]:
    """Return map and mask on the grid that they are compared at.

    Args:
        anomaly_map: float32 (h, w), of any resolution.
        mask: bool (H, W).
        size: side of a square; None for the mask's own grid.
        rule: how the mask is resized, see :func:`medzsad.datasets.images.resize_mask`.
    """
    if size is not None:
        mask = resize_mask(mask, size, rule)
    resized = resize_maps(torch.from_numpy(np.ascontiguousarray(anomaly_map))[None], mask.shape)
    return resized[0].numpy(), mask


def _image_level(name: str, scores: list[float], labels: list[int], draws: Draws | None) -> ClassOutcome:
    intervals = image_intervals(scores, labels, draws) if draws is not None else {}
    figures: dict[str, Figure] = {
        key.removeprefix("image_"): figure_of(value, intervals.get(key))
        for key, value in image_metrics(scores, labels).items()
    }
    outcome = ClassOutcome(
        name,
        labels.count(0),
        labels.count(1),
        {"image": figures},
        scores=list(zip(scores, labels, strict=True)),
    )
    outcome.curves["image"] = curves_of(rank_images(scores, labels))
    return outcome


def _case_figures(anomaly_map: np.ndarray, mask: np.ndarray) -> dict[str, float | None]:
    """AP of one image's pixels, by which cases are ranked; None if all or none are anomalous."""
    value = value_of(rank(anomaly_map, mask).ap)
    return {"pixel_ap": float(value) if isinstance(value, float) else None}
