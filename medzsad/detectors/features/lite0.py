"""EfficientNet-Lite0, trained on ImageNet, which ships with the package."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medzsad.detectors.clip.weights import install, read_tensors
from medzsad.detectors.features.base import PatchFeatures
from medzsad.storage.hashing import hash_tensors

ARCHITECTURE = "tf_efficientnet_lite0"  # timm's name
STAGES = (2, 3, 4, 5)
"""Stages whose features count; the first tells of edges alone, the last of the objects of ImageNet."""
IMAGE_SIZE = 256
EMBEDDED = "efficientnet-lite0.safetensors"  # in medzsad/weights; its card is beside it


class Lite0Features(PatchFeatures):
    """Features at strides 8, 16, 16 and 32 with 40, 80, 112 and 192 channels."""

    telling = (2,)  # chosen on the even halves of BrainMRI and Br35H: docs/normals.md

    def __init__(self, network: nn.ModuleDict, *, image_size: int = IMAGE_SIZE, digest: str = "") -> None:
        half = (0.5, 0.5, 0.5)
        super().__init__("lite0", image_size=image_size, multiple=32, mean=half, std=half, digest=digest)
        self.network = network

    @classmethod
    def build(cls, name: str, *, image_size: int | None, weights: str | Path | None) -> Lite0Features:
        """Build it from the embedded weights, or those of ``weights``; see :func:`.base.build_features`."""
        import timm

        path = Path(str(package_files("medzsad"))) / "weights" / EMBEDDED if weights is None else weights
        whole: Any = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0)
        network = nn.ModuleDict(
            {
                "conv_stem": whole.conv_stem,
                "bn1": whole.bn1,
                "blocks": nn.Sequential(*whole.blocks[: max(STAGES) + 1]),
            }
        )
        wanted = network.state_dict()
        tensors = {key: value.float() for key, value in read_tensors(path)[0].items() if key in wanted}
        # Counters of training steps, which count for nothing here, are not stored.
        counters = {key: torch.tensor(0) for key in wanted if key.endswith("num_batches_tracked")}
        install(network, {**tensors, **counters}, "", str(path), "EfficientNet-Lite0")
        size = IMAGE_SIZE if image_size is None else image_size
        return cls(network, image_size=size, digest=hash_tensors(tensors))

    def layers(self, images: Tensor) -> list[Tensor]:
        """Return the features after each of :data:`STAGES`."""
        tokens = self.network["bn1"](self.network["conv_stem"](images))
        found = []
        for stage, blocks in enumerate(self.network["blocks"].children()):
            tokens = blocks(tokens)
            if stage in STAGES:
                found.append(tokens)
        return found
