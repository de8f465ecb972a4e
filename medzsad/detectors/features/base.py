"""The one interface of frozen backbones: a batch of images in, patch features of several layers out."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
CLIP = "medzsad.detectors.features.clip:CLIPFeatures"
LAYERS = 4  # of a transformer


class PatchFeatures(nn.Module, abc.ABC):
    """A frozen backbone.

    Subclasses implement :meth:`layers` on normalised images, and a class method ``build`` with the arguments
    of :func:`build_features`.

    Args:
        name: what it is called by, a key of :data:`BACKBONES` or a name of the model zoo.
        image_size: side of the square input in pixels.
        multiple: of which it must be one.
        mean, std: per-channel normalisation.
        digest: of the weights as they were read, see :func:`~medzsad.storage.hashing.hash_tensors`; what was
            made with features of one digest fits none of another.

    Raises:
        ModelNotReady: if the image size does not fit.
    """

    mean: Tensor
    std: Tensor
    telling: tuple[int, ...] = ()
    """Layers whose distances count beside another detector (:mod:`medzsad.detectors.normals.combination`);
    empty for all."""

    def __init__(
        self,
        name: str,
        *,
        image_size: int,
        multiple: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        digest: str = "",
    ) -> None:
        super().__init__()
        check_size(name, image_size, multiple)
        self.name, self.image_size, self.digest = name, int(image_size), digest
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @abc.abstractmethod
    def layers(self, images: Tensor) -> list[Tensor]:
        """Return each layer's features, float32 (B, C, h, w), of normalised images (B, 3, S, S)."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return patch features, computed in float32 even under autocast.

        Args:
            images: float32 (B, 3, S, S) in [0, 1], S being :attr:`image_size`.

        Returns:
            For each layer float32 (B, C, h, w), averaged over 3 x 3 neighbours, so that a patch's feature
            tells of its surroundings, too (PatchCore, arXiv 2106.08265, equation 2).
        """
        with torch.autocast(images.device.type, enabled=False):
            found = self.layers((images.float() - self.mean) / self.std)
            pool = nn.functional.avg_pool2d
            return [pool(f.float(), 3, stride=1, padding=1, count_include_pad=False) for f in found]


def check_size(name: str, image_size: int, multiple: int) -> None:
    """Raise ModelNotReady for a side that the features ``name`` cannot be computed at."""
    if image_size <= 0 or image_size % multiple:
        raise ModelNotReady(
            f"{name} features: image_size {image_size} must be a positive multiple of {multiple}"
        )
    check_batch(image_size, 1, f"image_size {image_size}", ModelNotReady)


def build_features(
    name: str,
    *,
    image_size: int | None = None,
    weights: str | Path | None = None,
    backbone: str | Mapping[str, Any] | None = None,
) -> PatchFeatures:
    """Build a frozen backbone, ready to compute; :func:`medzsad.zoo.loading.load_features` finds its weights.

    Args:
        name: ``"lite0"`` (EfficientNet-Lite0, embedded), ``"mini"`` (the embedded detector's own),
            ``"dinov2-s14"``, ``"dinov2-b14"``, or what a CLIP is called.
        image_size: side of the input in pixels; None for the backbone's own.
        weights: the file of the weights; None for those in the package, which lite0 and mini have.
        backbone: of a CLIP, open_clip's name or its configuration.

    Raises:
        ModelNotReady: if there is no such backbone, its weights are missing or do not fit, or the image size
            does not.
    """
    if name not in BACKBONES and backbone is None:
        raise ModelNotReady(f"unknown features {name!r}; use {', '.join(BACKBONES)}, or say which CLIP it is")
    module, kind = BACKBONES.get(name, CLIP).split(":")
    build = getattr(importlib.import_module(module), kind).build
    chosen = {} if name in BACKBONES else {"backbone": backbone}
    return build(name, image_size=image_size, weights=weights, **chosen).eval().requires_grad_(False)


def chosen_layers(depth: int) -> tuple[int, ...]:
    """Return which layers of a transformer count, from 1: :data:`LAYERS`, evenly spaced in its second half.

    AnomalyDINO (arXiv 2405.14529) takes the last layer alone, SubspaceAD (arXiv 2602.23013) averages some of
    the middle (from the 23rd of 40 on). Both ends of that span are in here, and none of the layers that tell
    of edges and colours; each has a profile of its own.

    >>> chosen_layers(12), chosen_layers(24)
    ((6, 8, 10, 12), (12, 16, 20, 24))
    """
    half = depth - depth // 2
    return tuple(sorted({depth // 2 + round(half * part / (LAYERS - 1)) or 1 for part in range(LAYERS)}))
