"""The settings of HeadCLIP. What its paper leaves open is decided here, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from medzsad.detectors.scoring import POOLS
from medzsad.errors import ModelNotReady
from medzsad.settings import Settings

if TYPE_CHECKING:
    from medzsad.detectors.clip.backbone import FrozenCLIP

PATHS = ("patch+image", "patch", "image")
PARAMETRISATIONS = ("raw", "softmax", "sigmoid")


class HeadCLIPSettings(Settings, refusal=ModelNotReady):
    """Everything that determines HeadCLIP's numbers, besides what is learned.

    Attributes:
        backbone: open_clip's name of a ViT, or its configuration ``{embed_dim, vision_cfg, text_cfg}``.
        clip_weights: the pretrained tag (or file) that the detector was trained with.
        quick_gelu: the backbone's activation; None for what its weights need.
        position_mode: ``"bilinear"`` or ``"bicubic"`` resizing of the position embedding.
        image_size: side of the input in pixels, a multiple of the patch size.
        patch_layers: layers (from 1) whose maps are averaged; None for the last alone, which AnomalyCLIP's
            author came to recommend (its paper: 6, 12, 18 and 24).
        vv_start: first layer of the V-V path; None for a quarter of the depth (6 of 24).
        class_norm: final layer norm on the class token; AnomalyCLIP's published weights go without.
        temperature: of the softmax over normal and abnormal.
        smoothing_sigma: of the map, in pixels of the input.
        joint_weight: ``a`` of ``(1 - a) * p_image + a * pool(map)``.
        pool: ``"max"`` or ``"top"`` (mean of the highest ``pool_percent`` % of the pixels).
        pool_percent: see ``pool``.
        head_parametrisation: ``"raw"`` w, ``"softmax"`` (heads * softmax(w)) or ``"sigmoid"``
            (2 * sigmoid(w)).
        head_paths: which attention is weighted: the V-V path's (``"patch"``), the ordinary one (``"image"``)
            or both, each with its own weights (``"patch+image"``).
        head_layers: layers with head weights; None for all of the V-V path.
        prompt_length, deep_length, deep_depth, deep_start, deep_position: see
            :class:`~medzsad.detectors.headclip.prompts.PromptLearner`.
    """

    backbone: str | dict[str, Any] = "ViT-L-14-336"
    clip_weights: str | None = "openai"
    quick_gelu: bool | None = None
    position_mode: str = "bilinear"
    image_size: int = 518
    patch_layers: tuple[int, ...] | None = None
    vv_start: int | None = None
    class_norm: bool = False
    temperature: float = 0.07
    smoothing_sigma: float = 4.0
    joint_weight: float = 0.5
    pool: str = "max"
    pool_percent: float = 1.0
    head_parametrisation: str = "raw"
    head_paths: str = "patch+image"
    head_layers: tuple[int, ...] | None = None
    prompt_length: int = 12
    deep_length: int = 4
    deep_depth: int = 8
    deep_start: int = 1
    deep_position: int = 1

    def resolve(self, clip: FrozenCLIP) -> HeadCLIPSettings:
        """Return the same settings with every None decided for ``clip``.

        Raises:
            ModelNotReady: if a value is impossible, or does not fit ``clip``.
        """
        depth = clip.depth
        start = max(1, depth // 4) if self.vv_start is None else self.vv_start
        layers = (depth,) if self.patch_layers is None else tuple(self.patch_layers)
        heads = tuple(range(start, depth + 1)) if self.head_layers is None else tuple(self.head_layers)
        numbered = {start, *layers, *heads}
        sides = clip.patch_size
        rules: list[tuple[str, bool]] = [
            (
                f"image_size {self.image_size} must be a multiple of {clip.name}'s patch size {sides[0]}",
                self.image_size > 0 and not any(self.image_size % side for side in sides),
            ),
            (
                f"layers must be integers from 1 to {depth}, {clip.name}'s depth, and at least one",
                bool(layers) and all(isinstance(n, int) and 1 <= n <= depth for n in numbered),
            ),
            (
                "head_layers must hold a layer of the weighted path",
                max(heads, default=0) >= (1 if self.head_paths == "image" else start),
            ),
            (f"head_paths must be one of {', '.join(PATHS)}", self.head_paths in PATHS),
            (
                f"head_parametrisation must be one of {', '.join(PARAMETRISATIONS)}",
                self.head_parametrisation in PARAMETRISATIONS,
            ),
            (f"pool must be one of {', '.join(POOLS)}", self.pool in POOLS),
            ("pool_percent must lie in (0, 100]", 0 < self.pool_percent <= 100),
            ("joint_weight must lie in [0, 1]", 0 <= self.joint_weight <= 1),
            ("temperature must be positive", self.temperature > 0),
            ("smoothing_sigma must not be negative", self.smoothing_sigma >= 0),
        ]
        for rule, holds in rules:
            if not holds:
                raise ModelNotReady(f"HeadCLIP settings: {rule}")
        return replace(
            self, quick_gelu=clip.quick_gelu, patch_layers=layers, vv_start=start, head_layers=heads
        )
