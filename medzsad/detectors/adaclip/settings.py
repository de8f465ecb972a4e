"""The settings of AdaCLIP; the defaults are those of its published weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

from medzsad.detectors.clip.settings import (
    ClassName,
    CLIPSettings,
    Count,
    NotNegative,
    Positive,
    Rule,
    Share,
    within,
)
from medzsad.errors import certain

if TYPE_CHECKING:
    from medzsad.detectors.clip.backbone import FrozenCLIP
    from medzsad.detectors.clip.settings import Backbone


class AdaCLIPSettings(CLIPSettings):
    """Everything that determines AdaCLIP's numbers, besides what is learned.

    Attributes:
        backbone, clip_weights, position_mode, image_size: see the base class.
        quick_gelu: the backbone's activation; None for what its weights need. The published weights were
            trained on OpenAI's CLIP with plain GELU, although that CLIP was not, hence False.
        output_layers: layers (from 1) whose patch tokens are compared with the texts; None for four, evenly
            spaced (6, 12, 18 and 24 of 24).
        prompt_type: ``"S"`` static prompts, ``"D"`` dynamic ones, made from the image, ``"SD"`` their sum.
        prompt_branch: towers that are prompted: ``"V"`` visual, ``"L"`` language, ``"VL"`` both.
        prompt_depth: number of blocks with prompts of their own.
        prompt_length: prompt tokens per block.
        class_name: what the images show; it is put into the texts.
        fusion: how the image feature is fused with patch features: ``"code"``, ``"paper"`` or ``"off"``, see
            :mod:`medzsad.detectors.adaclip.scoring`.
        clusters: number of k-means clusters of the fusion.
        fusion_weight: weight of the fused patches; the class token has the rest.
        seed: of k-means' start.
        logit_scale: factor of the cosine similarities.
        smoothing_sigma: of the map, in pixels of the input.
    """

    quick_gelu: bool | None = False
    image_size: int = 518
    output_layers: tuple[int, ...] | None = None
    prompt_type: Literal["S", "D", "SD"] = "SD"
    prompt_branch: Literal["V", "L", "VL"] = "VL"
    prompt_depth: Count = 4
    prompt_length: Count = 5
    class_name: ClassName = "object"
    fusion: Literal["code", "paper", "off"] = "code"
    clusters: Count = 20
    fusion_weight: Share = 0.2
    seed: int = 0
    logit_scale: Positive = 100.0
    smoothing_sigma: NotNegative = 4.0

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

    def _decided(self, clip: Backbone) -> dict[str, Any]:
        spaced = sorted({max(1, clip.depth * quarter // 4) for quarter in (1, 2, 3, 4)})
        return {"output_layers": tuple(spaced) if self.output_layers is None else self.output_layers}

    def _rules(self, clip: Backbone) -> Iterator[Rule]:
        yield from super()._rules(clip)
        depth, layers = clip.depth, certain(self.output_layers)
        yield (
            f"output_layers must be ascending integers from 1 to {depth}, {clip.name}'s depth",
            within(layers, depth) and list(layers) == sorted(set(layers)),
        )
        yield (
            f"prompt_depth must lie in 1 to {depth}, {clip.name}'s depth",
            not self.prompts_image or self.prompt_depth <= depth,
        )
        tower = cast("FrozenCLIP", clip).text
        if tower is not None and self.prompts_text:
            blocks, length = len(tower.transformer.resblocks), tower.context_length
            yield f"prompt_depth must not exceed the text tower's depth {blocks}", self.prompt_depth <= blocks
            yield f"prompt_length must be below the text tower's length {length}", self.prompt_length < length
