"""One image tensor to the tensor of its anomaly map."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from medzsad.predicting import predict
from medzsad.results.prediction import ScanPrediction, SliceScore
from medzsad.results.tensors import result_meta
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
    """Return the mean over contrasts; of a slice, over those in which it was computed."""
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
        brain=None,
    )
