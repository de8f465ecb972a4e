"""Patch tokens of a frozen CLIP's image tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from medzsad.detectors.base import CLIP_MEAN, CLIP_STD
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.features.base import PatchFeatures, chosen_layers
from medzsad.errors import ModelNotReady
from medzsad.storage.hashing import hash_tensors


class CLIPFeatures(PatchFeatures):
    """Patch tokens of four layers of the ordinary path, each through the tower's last norm.

    Not projected into the space of texts, since patches are compared with patches.
    """

    def __init__(
        self, name: str, clip: FrozenCLIP, *, image_size: int | None = None, digest: str = ""
    ) -> None:
        (rows, columns), (native, _) = clip.patch_size, clip.visual.image_size
        if rows != columns:
            raise ModelNotReady(f"{name} features: patches of {rows} x {columns} pixels are not supported")
        size = native if image_size is None else image_size
        super().__init__(name, image_size=size, multiple=rows, mean=CLIP_MEAN, std=CLIP_STD, digest=digest)
        self.clip = clip
        self.chosen = chosen_layers(clip.depth)

    @classmethod
    def build(
        cls,
        name: str,
        *,
        image_size: int | None,
        weights: str | Path | Mapping[str, Tensor] | None,
        backbone: str | Mapping[str, Any],
    ) -> CLIPFeatures:
        """Build it; see :func:`.base.build_features`.

        Args:
            name: what it is called.
            image_size: side of the input, a multiple of the patch size; None for the tower's own.
            weights: see :meth:`FrozenCLIP.build`.
            backbone: open_clip's name of the model, or its configuration.
        """
        if weights is None:
            raise ModelNotReady(f"{name} features: no weights; give a local file as `weights`")
        clip = FrozenCLIP.build(backbone, weights, position_mode="bicubic", position_antialias=True)
        return cls(name, clip, image_size=image_size, digest=hash_tensors(clip.visual.state_dict()))

    def layers(self, images: Tensor) -> list[Tensor]:
        """Return the patch tokens after each of the chosen layers."""
        rows, columns = self.clip.grid(images)
        run = self.clip.run_blocks(self.clip.embed(images), layers=self.chosen)
        kept = [self.clip.visual.ln_post(run.layers[layer][:, 1:]) for layer in self.chosen]
        return [tokens.transpose(1, 2).unflatten(2, (rows, columns)) for tokens in kept]
