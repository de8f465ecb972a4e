"""From CLIP features to anomaly maps and scores: pure functions of tensors, float32 even under autocast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07
POOLS = ("max", "top")


def similarity_logits(features: Tensor, text: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Cosine similarities over the temperature.

    Args:
        features: (..., D) image or patch features, of any length.
        text: (K, D) text features, of any length.

    Returns:
        float32 (..., K).
    """
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T / temperature


def patch_probabilities(
    patches: Tensor, text: Tensor, grid: tuple[int, int], temperature: float = TEMPERATURE
) -> Tensor:
    """Probabilities of each text per patch.

    Args:
        patches: (B, rows * columns, D) patch features.
        text: (K, D) text features; row 0 normal, row 1 abnormal.
        grid: rows and columns.

    Returns:
        float32 (B, K, rows, columns), summing to 1 over K.
    """
    probabilities = similarity_logits(patches, text, temperature).softmax(-1)
    return probabilities.transpose(1, 2).unflatten(2, grid)


def abnormality(probabilities: Tensor) -> Tensor:
    """``(p_abnormal + 1 - p_normal) / 2`` of probabilities (B, 2, h, w): (B, h, w) in [0, 1]."""
    return (probabilities[:, 1] + 1 - probabilities[:, 0]) / 2


def upsample(maps: Tensor, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """Map (B, h, w) or (B, K, h, w), bilinearly, to ``size``."""
    stacked = maps if maps.ndim == 4 else maps[:, None]
    resized = F.interpolate(stacked, tuple(size), mode="bilinear", align_corners=align_corners)
    return resized if maps.ndim == 4 else resized[:, 0]


def gaussian_smooth(maps: Tensor, sigma: float, *, truncate: float = 4.0) -> Tensor:
    """Smooths maps as ``scipy.ndimage.gaussian_filter`` does by default, which the published methods use.

    Args:
        maps: (B, h, w).
        sigma: standard deviation in pixels; 0 leaves the maps alone.
        truncate: the kernel ends at this many sigmas.

    Returns:
        float32 (B, h, w). Borders are mirrored about the edge (``d c b a | a b c d | d c b a``).
    """
    if sigma <= 0:
        return maps.float()
    reach = int(truncate * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=maps.device, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = (kernel / kernel.sum()).float()
    height, width = maps.shape[-2:]
    with torch.autocast(maps.device.type, enabled=False):
        padded = maps.float()[:, _mirror(height, reach, maps.device)][
            :, :, _mirror(width, reach, maps.device)
        ]
        rows = F.conv2d(padded[:, None], kernel.view(1, 1, -1, 1))
        return F.conv2d(rows, kernel.view(1, 1, 1, -1))[:, 0]


def pool_map(maps: Tensor, pool: str = "max", percent: float = 1.0) -> Tensor:
    """One number per map.

    Args:
        maps: (B, h, w).
        pool: ``"max"``, or ``"top"`` for the mean of the highest values.
        percent: for ``"top"``: how many of them, in percent of the pixels (at least one).

    Returns:
        (B,).

    Raises:
        ValueError: on another pool, or a percentage outside (0, 100].
    """
    if pool not in POOLS or not 0 < percent <= 100:
        raise ValueError(f"pool {pool!r} with percent {percent}: use one of {POOLS} and 0 < percent <= 100")
    flat = maps.flatten(1)
    if pool == "max":
        return flat.amax(1)
    return flat.topk(max(1, round(flat.shape[1] * percent / 100)), dim=1).values.mean(1)


def joint_score(image_probability: Tensor, pooled: Tensor, weight: float) -> Tensor:
    """HeadCLIP's joint anomaly score, ``(1 - weight) * p_image + weight * pool(map)``, (B,).

    The paper (arXiv 2505.22259) says that the score uses pixel-level information; this form is our choice.
    """
    return (1 - weight) * image_probability + weight * pooled


def _mirror(length: int, reach: int, device: torch.device) -> Tensor:
    """Return indices -reach .. length + reach - 1, folded into 0 .. length - 1, however far they reach."""
    index = torch.arange(-reach, length + reach, device=device) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)
