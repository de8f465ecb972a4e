"""EfficientNet-Lite0, trained on ImageNet, which ships with the package."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path

from torch import Tensor, nn

from medzsad.detectors.features.base import PatchFeatures
from medzsad.errors import ModelNotReady
from medzsad.limits import require_file

ARCHITECTURE = "tf_efficientnet_lite0"  # timm's name
STAGES = (2, 3, 4, 5)
"""Stages whose features count; the first tells of edges alone, the last of the objects of ImageNet."""
IMAGE_SIZE = 256


class Lite0Features(PatchFeatures):
    """Features at strides 8, 16, 16 and 32 with 40, 80, 112 and 192 channels."""

    def __init__(self, network: nn.Module, *, image_size: int = IMAGE_SIZE) -> None:
        super().__init__("lite0", image_size=image_size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        if image_size % 32:
            raise ModelNotReady(f"lite0 features: image_size {image_size} must be a multiple of 32")
        self.network = network

    @classmethod
    def build(cls, name: str, *, image_size: int | None, weights: str | Path | None) -> Lite0Features:
        """Build it from the embedded weights, or those of ``weights``; see :func:`.base.build_features`."""
        import timm
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(str(package_files("medzsad"))) / "weights" / "efficientnet-lite0.safetensors"
        path = require_file(path if weights is None else weights, ModelNotReady)
        network = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0)
        try:
            tensors = load_file(path)
            network.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=False)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ModelNotReady(f"{path}: not the weights of EfficientNet-Lite0 ({error})") from error
        return cls(network, image_size=IMAGE_SIZE if image_size is None else image_size)

    def layers(self, images: Tensor) -> list[Tensor]:
        """Return the features after each of :data:`STAGES`."""
        tokens = self.network.bn1(self.network.conv_stem(images))
        found = []
        for stage, block in enumerate(self.network.blocks[: max(STAGES) + 1]):
            tokens = block(tokens)
            if stage in STAGES:
                found.append(tokens)
        return found
