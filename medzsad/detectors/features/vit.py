"""DINOv2's vision transformers (arXiv 2304.07193), through timm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from medzsad.detectors.clip.weights import install, read_tensors
from medzsad.detectors.features.base import PatchFeatures, check_size, chosen_layers
from medzsad.errors import ModelNotReady
from medzsad.storage.hashing import hash_tensors

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "dinov2-s14": {"model_name": "vit_small_patch14_dinov2"},
    "dinov2-b14": {"model_name": "vit_base_patch14_dinov2"},
}
"""What makes each of them, for ``timm.create_model``."""
IMAGE_SIZE = 448  # as in AnomalyDINO; 32 x 32 patches
PATCH = 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ViTFeatures(PatchFeatures):
    """Patch tokens of four layers at stride 14, with 384 channels (S/14) or 768 (B/14).

    Each layer goes through the network's last norm, as DINOv2 itself gives intermediate layers: a few
    channels would outweigh all others else.
    """

    def __init__(self, name: str, network: VisionTransformer, *, image_size: int, digest: str = "") -> None:
        super().__init__(name, image_size=image_size, multiple=PATCH, mean=MEAN, std=STD, digest=digest)
        self.network = network
        self.chosen = [layer - 1 for layer in chosen_layers(len(network.blocks))]

    @classmethod
    def build(cls, name: str, *, image_size: int | None, weights: str | Path | None) -> ViTFeatures:
        """Build it; see :func:`.base.build_features`.

        Args:
            name: a key of :data:`ARCHITECTURES`.
            image_size: side of the input, a multiple of 14; None for :data:`IMAGE_SIZE`.
            weights: a file as timm (``model.safetensors``) or its authors (``.pth``) publish it.
        """
        import timm
        from timm.models.vision_transformer import checkpoint_filter_fn

        if weights is None:
            raise ModelNotReady(f"{name} features: no weights; give a local file as `weights`")
        size = IMAGE_SIZE if image_size is None else image_size
        check_size(name, size, PATCH)  # before the embedding of positions is as large
        own: dict[str, Any] = {**ARCHITECTURES[name], "img_size": size}
        network: Any = timm.create_model(**own, pretrained=False, num_classes=0)
        wanted = network.state_dict()
        # The authors' file also holds a token for masked patches, which only their training needs.
        tensors = {key: value.float() for key, value in read_tensors(weights)[0].items() if key in wanted}
        if "pos_embed" not in tensors or tensors["pos_embed"].ndim != 3:
            raise ModelNotReady(f"{weights}: not the weights of {name}: pos_embed missing")
        digest = hash_tensors(tensors)
        # timm's own way of resizing the embedding of positions, which was learned for 518 pixels.
        if tensors["pos_embed"].shape[-1] == wanted["pos_embed"].shape[-1]:
            tensors = checkpoint_filter_fn(tensors, network)
        install(network, tensors, "", str(weights), name)
        return cls(name, network, image_size=size, digest=digest)

    def layers(self, images: Tensor) -> list[Tensor]:
        """Return the patch tokens after each of the chosen layers."""
        tokens: Any = self.network.forward_intermediates(
            images, indices=self.chosen, norm=True, stop_early=True, intermediates_only=True
        )
        return tokens
