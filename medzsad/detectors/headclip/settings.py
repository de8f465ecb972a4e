"""The settings of HeadCLIP. What its paper leaves open is decided here, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from medzsad.detectors.clip.settings import CLIPSettings, NotNegative, Positive, Rule, Share, within
from medzsad.errors import certain

if TYPE_CHECKING:
    from medzsad.detectors.clip.settings import Backbone


class HeadCLIPSettings(CLIPSettings):
    """Everything that determines HeadCLIP's numbers, besides what is learned.

    Attributes:
        backbone, clip_weights, quick_gelu, position_mode, image_size: see the base class.
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

    position_mode: Literal["bilinear", "bicubic"] = "bilinear"
    image_size: int = 518
    patch_layers: tuple[int, ...] | None = None
    vv_start: int | None = None
    class_norm: bool = False
    temperature: Positive = 0.07
    smoothing_sigma: NotNegative = 4.0
    joint_weight: Share = 0.5
    pool: Literal["max", "top"] = "max"
    pool_percent: Annotated[float, Field(gt=0, le=100)] = 1.0
    head_parametrisation: Literal["raw", "softmax", "sigmoid"] = "raw"
    head_paths: Literal["patch+image", "patch", "image"] = "patch+image"
    head_layers: tuple[int, ...] | None = None
    prompt_length: int = 12
    deep_length: int = 4
    deep_depth: int = 8
    deep_start: int = 1
    deep_position: int = 1

    def _decided(self, clip: Backbone) -> dict[str, Any]:
        start = max(1, clip.depth // 4) if self.vv_start is None else self.vv_start
        layers = (clip.depth,) if self.patch_layers is None else self.patch_layers
        heads = tuple(range(start, clip.depth + 1)) if self.head_layers is None else self.head_layers
        return {"patch_layers": layers, "vv_start": start, "head_layers": heads}

    def _rules(self, clip: Backbone) -> Iterator[Rule]:
        yield from super()._rules(clip)
        start, heads = certain(self.vv_start), certain(self.head_layers)
        layers = certain(self.patch_layers)
        yield (
            f"layers must be integers from 1 to {clip.depth}, {clip.name}'s depth, and at least one",
            bool(layers) and within((start, *layers, *heads), clip.depth),
        )
        yield (
            "head_layers must hold a layer of the weighted path",
            max(heads, default=0) >= (1 if self.head_paths == "image" else start),
        )
