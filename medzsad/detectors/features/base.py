"""The one interface of frozen backbones: a batch of images in, patch features of several layers out."""

from __future__ import annotations

import abc
import importlib
from pathlib import Path

import torch
from torch import Tensor, nn

from medzsad.errors import ModelNotReady
from medzsad.limits import check_batch

BACKBONES = {
    "lite0": "medzsad.detectors.features.lite0:Lite0Features",
    "mini": "medzsad.detectors.features.mini:MiniFeatures",
    "dinov2-s14": "medzsad.detectors.features.vit:ViTFeatures",
    "dinov2-b14": "medzsad.detectors.features.vit:ViTFeatures",
}
"""Class of each backbone by name; any other name is a CLIP of the model zoo."""


class PatchFeatures(nn.Module, abc.ABC):
    """A frozen backbone.

    Subclasses implement :meth:`layers` on normalised images.

    Args:
        name: what it is called by, a key of :data:`BACKBONES` or a name of the model zoo.
        image_size: side of the square input in pixels.
        mean, std: per-channel normalisation.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        image_size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        check_batch(image_size, 1, f"image_size {image_size}", ModelNotReady)
        self.name, self.image_size = name, int(image_size)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @abc.abstractmethod
    def layers(self, images: Tensor) -> list[Tensor]:
        """Return each layer's features, float32 (B, C, h, w), of normalised images (B, 3, S, S)."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return patch features.

        Args:
            images: float32 (B, 3, S, S) in [0, 1], S being :attr:`image_size`.

        Returns:
            For each layer float32 (B, C, h, w), averaged over 3 x 3 neighbours, so that a patch's feature
            tells of its surroundings, too (PatchCore, arXiv 2106.08265, equation 2).
        """
        found = self.layers((images - self.mean) / self.std)
        pool = nn.functional.avg_pool2d
        return [pool(f.float(), 3, stride=1, padding=1, count_include_pad=False) for f in found]


def build_features(
    name: str, *, image_size: int | None = None, weights: str | Path | None = None
) -> PatchFeatures:
    """Build a frozen backbone, ready to compute.

    Args:
        name: ``"lite0"`` (EfficientNet-Lite0, embedded), ``"mini"`` (the embedded detector's own),
            ``"dinov2-s14"``, ``"dinov2-b14"``, or a CLIP of the model zoo.
        image_size: side of the input in pixels; None for the backbone's own.
        weights: a file, instead of the one that the name stands for.

    Raises:
        ModelNotReady: if there is no such backbone, or its weights are missing or do not fit.
    """
    where = BACKBONES.get(name)
    if where is None:
        known = ", ".join(BACKBONES)
        raise ModelNotReady(f"unknown features {name!r}; use one of {known}")
    module, kind = where.split(":")
    build = getattr(importlib.import_module(module), kind).build
    return build(name, image_size=image_size, weights=weights).eval().requires_grad_(False)
