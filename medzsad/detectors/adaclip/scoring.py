"""From AdaCLIP's features to scores and maps: pure functions of tensors, float32 even under autocast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.adaclip.fusion import fuse_patches
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.scoring import abnormality, gaussian_smooth, upsample


class Encoded(NamedTuple):
    """Features of a batch of images, all float32 and L2-normalised over D.

    Attributes:
        text: (B, D, 2), index 0 normal, 1 abnormal; the same for all images unless made from them.
        image: (B, D), of the class token.
        patches: per output layer, (B, P, D).
        grid: rows and columns of the P patches.
    """

    text: Tensor
    image: Tensor
    patches: dict[int, Tensor]
    grid: tuple[int, int]


class AdaCLIPComparison(NamedTuple):
    """How alike a batch of images is to "normal" (index 0) and "abnormal" (index 1); losses start here.

    Attributes:
        image_logits: float32 (B, 2), of the image feature fused with suspicious patches.
        class_logits: float32 (B, 2), of the class token alone.
        patch_logits: per output layer, float32 (B, 2, rows, columns).
    """

    image_logits: Tensor
    class_logits: Tensor
    patch_logits: dict[int, Tensor]


def compare_features(encoded: Encoded, config: AdaCLIPSettings) -> AdaCLIPComparison:
    """Cosine similarities times ``config.logit_scale``, with and without ``config.fusion``."""
    with torch.autocast(encoded.image.device.type, enabled=False):
        text = config.logit_scale * encoded.text
        patch_logits = {layer: features @ text for layer, features in encoded.patches.items()}
        class_logits = image_logits = (encoded.image[:, None] @ text)[:, 0]
        if config.fusion != "off":
            fused = fuse_patches(
                torch.stack(list(encoded.patches.values()), 1),
                torch.stack(list(patch_logits.values())).mean(0).softmax(-1)[..., 1],
                variant=config.fusion,
                clusters=config.clusters,
                seed=config.seed,
            )
            weight = config.fusion_weight
            image = F.normalize(weight * fused + (1 - weight) * encoded.image, dim=-1)
            image_logits = (image[:, None] @ text)[:, 0]
    maps = {n: logits.transpose(1, 2).unflatten(2, encoded.grid) for n, logits in patch_logits.items()}
    return AdaCLIPComparison(image_logits, class_logits, maps)


def layer_probability_maps(comparison: AdaCLIPComparison, size: Sequence[int]) -> dict[int, Tensor]:
    """Return the published aggregation for training: every layer by itself.

    Returns:
        Per output layer, float32 (B, 2, *size) that sums to 1 over normal and abnormal.
    """
    return {
        layer: upsample(logits, size, align_corners=True).softmax(1)
        for layer, logits in comparison.patch_logits.items()
    }


def aggregated_map(comparison: AdaCLIPComparison, size: Sequence[int], *, sigma: float = 0.0) -> Tensor:
    """Return the published aggregation for predicting.

    Mean logits of the layers, enlarged, softmax, smoothed.

    Args:
        comparison: of images with texts.
        size: height and width of the map.
        sigma: of the Gaussian smoothing, in pixels of the map.

    Returns:
        float32 (B, *size) in [0, 1].
    """
    logits = torch.stack(list(comparison.patch_logits.values())).mean(0)
    return gaussian_smooth(abnormality(upsample(logits, size, align_corners=True).softmax(1)), sigma)
