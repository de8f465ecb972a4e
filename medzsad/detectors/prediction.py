"""What a detector says of images, how maps come to their size, and batches that several networks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Prediction(NamedTuple):
    """What a detector says of a batch of B images.

    Attributes:
        anomaly_map: float32 (B, H, W) in [0, 1]; 1 is most anomalous.
        image_score: float32 (B,) in [0, 1]; ranks images (for HeadCLIP the joint anomaly score).
        image_probability: float32 (B,) in [0, 1]; the detector's image-level probability of "abnormal" alone.
    """

    anomaly_map: Tensor
    image_score: Tensor
    image_probability: Tensor


class SlicePrediction(NamedTuple):
    """The same of B slices by a detector that :attr:`~AnomalyDetector.marks_brain`.

    Attributes:
        anomaly_map, image_score, image_probability: see :class:`Prediction`.
        brain: float32 (B, H, W) in [0, 1], the probability of brain.
    """

    anomaly_map: Tensor
    image_score: Tensor
    image_probability: Tensor
    brain: Tensor


def resize_maps(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Anomaly maps (B, h, w) to (B, *size), bilinearly; float32 in [0, 1]."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0].clamp(0, 1)


def divided(
    inputs: Tensor, chosen: Tensor, networks: Sequence[Callable[[Tensor], Prediction | SlicePrediction]]
) -> Prediction | SlicePrediction:
    """Predict each image with the network that is for it.

    Each network gets its own images alone, so that an image's numbers do not depend on what else is in the
    batch.

    Args:
        inputs: float32 (B, 3, S, S).
        chosen: int64 (B,), which of ``networks`` each image is for.
        networks: of whom none is called without images.
    """
    whole: list[Tensor] = []
    for number, network in enumerate(networks):
        mine = chosen == number
        if mine.all():
            return network(inputs)
        if not mine.any():
            continue
        part = network(inputs[mine])
        whole = whole or [value.new_empty(len(inputs), *value.shape[1:]) for value in part]
        for target, value in zip(whole, part, strict=True):
            target[mine] = value
    return Prediction(*whole)
