"""The settings of AdaCLIP; the defaults are those of its published weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from medzsad.errors import ModelNotReady
from medzsad.settings import Settings

if TYPE_CHECKING:
    from medzsad.detectors.clip.backbone import FrozenCLIP

PROMPT_TYPES = ("S", "D", "SD")
PROMPT_BRANCHES = ("V", "L", "VL")
FUSIONS = ("code", "paper", "off")


class AdaCLIPSettings(Settings, refusal=ModelNotReady):
    """Everything that determines AdaCLIP's numbers, besides what is learned.

    Attributes:
        backbone: open_clip's name of a ViT, or its configuration ``{embed_dim, vision_cfg, text_cfg}``.
        clip_weights: the pretrained tag (or file) that the detector was trained with.
        quick_gelu: the backbone's activation; None for what its weights need. The published weights were
            trained on OpenAI's CLIP with plain GELU, although that CLIP was not, hence False.
        position_mode: ``"bilinear"`` or ``"bicubic"`` resizing of the position embedding.
        image_size: side of the input in pixels, a multiple of the patch size.
        output_layers: layers (from 1) whose patch tokens are compared with the texts; None for four, evenly
            spaced (6, 12, 18 and 24 of 24).
        prompt_type: ``"S"`` static prompts, ``"D"`` dynamic ones, made from the image, ``"SD"`` their sum.
        prompt_branch: towers that are prompted: ``"V"`` visual, ``"L"`` language, ``"VL"`` both.
        prompt_depth: number of blocks with prompts of their own.
        prompt_length: prompt tokens per block.
        class_name: what the images show; it is put into the texts.
        fusion: how the image feature is fused with patch features: ``"code"``, ``"paper"`` or ``"off"``, see
            :mod:`medzsad.detectors.adaclip.fusion`.
        clusters: number of k-means clusters of the fusion.
        fusion_weight: weight of the fused patches; the class token has the rest.
        seed: of k-means' start.
        logit_scale: factor of the cosine similarities.
        smoothing_sigma: of the map, in pixels of the input.
    """

    backbone: str | dict[str, Any] = "ViT-L-14-336"
    clip_weights: str | None = "openai"
    quick_gelu: bool | None = False
    position_mode: str = "bicubic"
    image_size: int = 518
    output_layers: tuple[int, ...] | None = None
    prompt_type: str = "SD"
    prompt_branch: str = "VL"
    prompt_depth: int = 4
    prompt_length: int = 5
    class_name: str = "object"
    fusion: str = "code"
    clusters: int = 20
    fusion_weight: float = 0.2
    seed: int = 0
    logit_scale: float = 100.0
    smoothing_sigma: float = 4.0

    @property
    def dynamic(self) -> bool:
        """Whether prompts are made from the image."""
        return "D" in self.prompt_type

    @property
    def prompts_image(self) -> bool:
        """Whether the image tower is prompted."""
        return "V" in self.prompt_branch

    @property
    def prompts_text(self) -> bool:
        """Whether the text tower is prompted, which happens before its second block at the earliest."""
        return "L" in self.prompt_branch and self.prompt_depth > 1

    @property
    def text_depends_on_image(self) -> bool:
        """Whether every image has text features of its own, for which predicting needs the text tower."""
        return self.dynamic and self.prompts_text

    def resolve(self, clip: FrozenCLIP) -> AdaCLIPSettings:
        """Return the same settings with every None decided for ``clip``.

        Raises:
            ModelNotReady: if a value is impossible, or does not fit ``clip``.
        """
        depth, sides = clip.depth, clip.patch_size
        spaced = sorted({max(1, depth * quarter // 4) for quarter in (1, 2, 3, 4)})
        layers = tuple(spaced if self.output_layers is None else self.output_layers)
        rules: list[tuple[str, bool]] = [
            (
                f"image_size {self.image_size} must be a multiple of {clip.name}'s patch size {sides[0]}",
                self.image_size > 0 and not any(self.image_size % side for side in sides),
            ),
            (
                f"output_layers must be ascending integers from 1 to {depth}, {clip.name}'s depth",
                bool(layers)
                and all(isinstance(n, int) and 1 <= n <= depth for n in layers)
                and list(layers) == sorted(set(layers)),
            ),
            (f"prompt_type must be one of {', '.join(PROMPT_TYPES)}", self.prompt_type in PROMPT_TYPES),
            (
                f"prompt_branch must be one of {', '.join(PROMPT_BRANCHES)}",
                self.prompt_branch in PROMPT_BRANCHES,
            ),
            (
                f"prompt_depth must lie in 1 to {depth}, {clip.name}'s depth",
                not self.prompts_image or 1 <= self.prompt_depth <= depth,
            ),
            (
                "prompt_depth and prompt_length must be at least 1",
                min(self.prompt_depth, self.prompt_length) > 0,
            ),
            ("class_name must not be empty", bool(self.class_name.replace("-", " ").strip())),
            (f"fusion must be one of {', '.join(FUSIONS)}", self.fusion in FUSIONS),
            ("clusters must be at least 1", self.clusters >= 1),
            ("fusion_weight must lie in [0, 1]", 0 <= self.fusion_weight <= 1),
            ("logit_scale must be positive", self.logit_scale > 0),
            ("smoothing_sigma must not be negative", self.smoothing_sigma >= 0),
        ]
        if clip.text is not None and self.prompts_text:
            blocks, length = len(clip.text.transformer.resblocks), clip.text.context_length
            rules.append(
                (f"prompt_depth must not exceed the text tower's depth {blocks}", self.prompt_depth <= blocks)
            )
            rules.append(
                (f"prompt_length must be below the text tower's length {length}", self.prompt_length < length)
            )
        for rule, holds in rules:
            if not holds:
                raise ModelNotReady(f"AdaCLIP settings: {rule}")
        return replace(self, quick_gelu=clip.quick_gelu, output_layers=layers)
