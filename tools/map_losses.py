"""The losses of medzsad-mini's networks for images: of maps and of whole images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def losses(pixel: Tensor, image: Tensor, masks: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Image cross-entropy, pixel focal and dice (abnormal and normal), as in AnomalyCLIP's training.

    Args:
        pixel: logits (B, 2, h, w).
        image: logits (B, 2).
        masks: (B, S, S) in {0, 1}; averaged down to h, w, so that a border pixel is partly lesion.
        labels: (B,).
    """
    target = F.adaptive_avg_pool2d(masks[:, None], pixel.shape[-2:])[:, 0]
    log_p = pixel.log_softmax(1)
    p = log_p.exp()
    # Focal loss (gamma 2) with a little less weight on the many normal pixels.
    focal = -(target * p[:, 0].square() * log_p[:, 1] + 0.5 * (1 - target) * p[:, 1].square() * log_p[:, 0])
    # Dice over the whole batch, and per sick image: small lesions count too.
    sick = labels.bool()

    def dice(probability: Tensor, wanted: Tensor, dims: tuple[int, ...]) -> Tensor:
        overlap = (probability * wanted).sum(dims)
        return (1 - (2 * overlap + 1) / (probability.sum(dims) + wanted.sum(dims) + 1)).mean()

    abnormal = dice(p[:, 1], target, (0, 1, 2)) / 2
    if sick.any():
        abnormal = abnormal + dice(p[sick, 1], target[sick], (1, 2)) / 2
    normal = dice(p[:, 0], 1 - target, (1, 2))
    ce = F.cross_entropy(image, labels, label_smoothing=0.02)
    return ce, 10 * focal.mean(), abnormal + normal
