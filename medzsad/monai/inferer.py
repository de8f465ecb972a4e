"""Anomaly detection as MONAI knows inference, and our metrics in its engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import collate_meta_tensor, decollate_batch
from monai.handlers import IgniteMetricHandler
from monai.inferers import Inferer
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.volume_rules import ANY_VALUES
from medzsad.errors import certain
from medzsad.predicting import predict
from medzsad.results.lesions import parse_threshold
from medzsad.results.prediction import ScanPrediction, SliceScore, result_meta
from medzsad.scans.tensors import shows_colour, spatial_axes

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector


# What MONAI's transforms ask a MetaTensor for. The rest stays behind: PydicomReader notes who was scanned.
_KEPT = ("filename_or_obj", "original_affine", "spatial_shape", "space", "original_channel_dim")


def channels_of(image: Tensor, modality: str | None = None) -> list[Tensor]:
    """Return the scans that a channel-first image holds: itself, or its contrasts, each (1, *spatial)."""
    has_alpha = getattr(image, "meta", {}).get("mode") == "LA"
    if spatial_axes(image) == image.ndim or len(image) == 1 or has_alpha or shows_colour(image, modality):
        return [image]
    return [image[channel : channel + 1] for channel in range(len(image))]


def anomaly_map(
    image: Tensor, detector: AnomalyDetector, *, modality: str | None, **options: Any
) -> MetaTensor:
    """Predict one image.

    Args:
        image: see :func:`medzsad.scans.tensors.scan_of_tensor`. Of several contrasts each is predicted alone,
            and map and scores are the means.
        detector: the detector.
        modality: see :func:`medzsad.read_scan`.
        options: of :func:`medzsad.predict`.

    Returns:
        float32 (1, *spatial) in [0, 1] on the image's device, with its affine and its history of transforms.
    """
    parts = channels_of(image, modality)
    prediction = _mean([predict(part, detector, modality=modality, **options) for part in parts])
    shape = image.shape[image.ndim - spatial_axes(image) :]
    voxels = torch.from_numpy(prediction.anomaly_map.copy("C")).reshape(1, *shape).to(image.device)
    meta = getattr(image, "meta", {})
    return MetaTensor(
        voxels,
        affine=getattr(image, "affine", torch.eye(4, dtype=torch.float64)).clone(),
        meta={key: meta[key] for key in _KEPT if key in meta} | result_meta(prediction),
        applied_operations=list(getattr(image, "applied_operations", ())),
    )


def _mean(predictions: list[ScanPrediction]) -> ScanPrediction:
    """Return the mean over contrasts; of a slice, over those in which it was computed.

    What one contrast alone shows has a low mean, so candidates need no least peak.
    """
    first = predictions[0]
    if len(predictions) == 1:
        return first
    slices: dict[tuple[str, int], list[SliceScore]] = {}
    for prediction in predictions:
        for score in prediction.slice_scores:
            slices.setdefault((score.plane, score.index), []).append(score)
    scores = [
        replace(
            found[0],
            score=float(np.mean([score.score for score in found])),
            probability=float(np.mean([score.probability for score in found])),
        )
        for _, found in sorted(slices.items())
    ]
    return replace(
        first,
        anomaly_map=np.asarray(np.mean([one.anomaly_map for one in predictions], axis=0, dtype=np.float32)),
        score=float(np.mean([prediction.score for prediction in predictions])),
        slice_scores=scores,
        threshold=float(np.mean([prediction.threshold for prediction in predictions])),
        settings=first.settings | {"channels": len(predictions)},
        rules=replace(first.rules, **ANY_VALUES),
        brain=None,
    )


class AnomalyInferer(Inferer):
    """Runs a detector over a batch of volumes or images, from intensities as stored to maps on their grids.

    Each item is predicted as :func:`medzsad.predict` does: slices of the plane that its affine says, windows
    or percentiles of its own, the map back on its voxels. All orientations of a volume give the same map in
    the patient. Works in ``SupervisedEvaluator``; a device and a precision are the detector's own affair.

    Args:
        plane, window, threshold, roi, max_candidates, min_volume, all_candidates, volume_rules, slice_step,
            first_pass, modality: of :func:`medzsad.predict`.
        batch_size: slices at once; chosen by default.
    """

    def __init__(
        self,
        *,
        plane: str = "auto",
        window: str | None = None,
        threshold: float | str | None = None,
        roi: str | None = None,
        max_candidates: int | None = None,
        min_volume: float | None = None,
        all_candidates: bool = False,
        volume_rules: str = "auto",
        slice_step: float | str | None = None,
        first_pass: int | None = None,
        modality: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "plane": plane,
            "window": window,
            "threshold": threshold,
            "roi": roi,
            "max_candidates": max_candidates,
            "min_volume": min_volume,
            "all_candidates": all_candidates,
            "volume_rules": volume_rules,
            "slice_step": slice_step,
            "first_pass": first_pass,
            "modality": modality,
            "batch_size": batch_size,
        }

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> MetaTensor:
        """Predict.

        Args:
            inputs: (B, C, X, Y, Z) or (B, C, X, Y), any real type and device. Of a ``MetaTensor`` affine and
                meta are each item's own, where they were batched, or one for all. A plain tensor is taken to
                have voxels of 1 mm along right, anterior and superior. C is 1, or 3 of colours; each of
                several contrasts (T1, T2, ...) is predicted alone, and map and scores are their means.
            network: the detector (``medzsad.load_detector``), also within ``DistributedDataParallel``.
            args, kwargs: what MONAI hands over; nothing is done with it.

        Returns:
            float32 (B, 1, *spatial) in [0, 1] on the inputs' device, with their affine. In the meta, for each
            item: ``score``, ``threshold``, and for :class:`SavePredictiond` all else of the prediction.

        Raises:
            TypeError: if ``network`` is no detector.
            ValueError: if ``inputs`` have no batch and channels.
            BadInput: if an item cannot be looked at, see :func:`medzsad.read_scan`.
        """
        detector = getattr(network, "module", network)
        if not isinstance(detector, AnomalyDetector):
            raise TypeError(
                f"network must be a detector of medzsad.load_detector, not {type(detector).__name__}"
            )
        if inputs.ndim not in (4, 5):
            raise ValueError(f"expected (B, C, X, Y, Z) or (B, C, X, Y), got {tuple(inputs.shape)}")
        maps = [anomaly_map(item, detector, **self.options) for item in _items(inputs)]
        if _is_collated(inputs):
            return collate_meta_tensor(maps)
        per_item = [key for key in maps[0].meta if key not in ("affine", "space")]
        return MetaTensor(
            torch.stack([one.as_tensor() for one in maps]),
            affine=inputs.affine if isinstance(inputs, MetaTensor) else maps[0].affine,
            meta={key: [one.meta[key] for one in maps] for key in per_item},
        )


def _is_collated(inputs: Tensor) -> bool:
    """Whether affine and meta hold one entry for each item, as ``monai.data.DataLoader`` makes it."""
    return isinstance(inputs, MetaTensor) and inputs.is_batch and inputs.affine.ndim == 3


def _items(inputs: Tensor) -> list[Tensor]:
    if _is_collated(inputs):
        return decollate_batch(inputs)
    if not isinstance(inputs, MetaTensor):
        return list(inputs)
    affine, meta = inputs.affine, {key: value for key, value in inputs.meta.items() if key != "affine"}
    return [
        MetaTensor(item, affine=affine[index] if affine.ndim == 3 else affine, meta=dict(meta))
        for index, item in enumerate(inputs.as_tensor())
    ]


class FiguresHandler(IgniteMetricHandler):
    """Puts all figures of a metric of :mod:`medzsad.metrics` into the engine's metrics, each by its name.

    The handler's own name must be one of them: ``key_val_metric: {case_ap: FiguresHandler(...)}``.
    """

    def compute(self) -> float:
        """Return the figure that the handler is named after."""
        figures = super().compute()
        certain(self._engine).state.metrics.update(figures)
        return figures[self._name]


def scores_and_labels(output: list[dict[str, Any]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return, of an evaluator's output, each scan's score (1,), and whether anything is labelled (1,)."""
    scores = [torch.tensor([one["pred"].meta["score"]], dtype=torch.float64) for one in output]
    return scores, [one["label"].any().reshape(1).as_subclass(torch.Tensor) for one in output]


def fixed_threshold(threshold: float | str | None, detector: AnomalyDetector) -> float | None:
    """Return the threshold of maps of volumes, by default the detector's; None if scans differ in it."""
    rule = parse_threshold(detector.for_volume().threshold if threshold is None else threshold)
    return rule if isinstance(rule, float) else None
