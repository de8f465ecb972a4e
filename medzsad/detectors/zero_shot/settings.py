"""The settings of the detectors without training: plain CLIP and WinCLIP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from medzsad.detectors.clip.generic import is_generic
from medzsad.detectors.clip.settings import (
    ClassName,
    CLIPSettings,
    NotNegative,
    Positive,
    Rule,
    Share,
    within,
)
from medzsad.errors import certain

if TYPE_CHECKING:
    from medzsad.detectors.clip.settings import Backbone


class TrainingFreeSettings(CLIPSettings):
    """What plain CLIP and WinCLIP have in common.

    Attributes:
        backbone: as in the base class, or ``hf-hub:owner/name`` / ``local-dir:folder`` of a CLIP whose image
            tower is timm's ViT.
        clip_weights: the pretrained tag (or file); for ``hf-hub:`` and ``local-dir:`` None takes the weights
            found there, and so does the default tag, which no such model has.
        quick_gelu, position_mode, image_size: see the base class.
        temperature: of the softmax over normal and abnormal.
        smoothing_sigma: of the map, in pixels of the input.
        joint_weight: ``a`` of ``(1 - a) * p_image + a * max(map)``; 0 scores by the class token alone.
        organ: what the images show, a name of :mod:`medzsad.detectors.organs`; None for any object.
        class_name: put into the texts instead of the organ's class name.
        ensemble: ``"states"``, all states in all templates, averaged; or ``"two"``, "a photo of a normal ..."
            against "a photo of an anomalous ...".
    """

    temperature: Positive = 0.01
    smoothing_sigma: NotNegative = 4.0
    joint_weight: Share = 0.0
    organ: str | None = None
    class_name: ClassName | None = None
    ensemble: Literal["states", "two"] = "states"

    def __post_init__(self) -> None:
        # The default tag is one of open_clip's own models, not of any that brings its weights along.
        default = type(self).__dataclass_fields__["clip_weights"].default
        if is_generic(self.backbone) and self.clip_weights == default:
            object.__setattr__(self, "clip_weights", None)

    def _rules(self, clip: Backbone) -> Iterator[Rule]:
        yield from super()._rules(clip)
        if not hasattr(clip, "position_embedding"):
            rows, columns = tuple(clip.visual.image_size)
            size = self.image_size
            yield f"image_size must be {rows} for {clip.name}", (rows, columns) == (size, size)


class PlainCLIPSettings(TrainingFreeSettings):
    """Everything that determines plain CLIP's numbers.

    The temperature is CLIP's own, 1/100; the rest is our choice, after what the field compares itself with.

    Attributes:
        dense: patch features are those of the last layer (``"plain"``), or of the V-V path (``"vv"``).
        vv_start: first layer of the V-V path; None for a quarter of the depth (6 of 24).
    """

    dense: Literal["plain", "vv"] = "plain"
    vv_start: int | None = None

    def _decided(self, clip: Backbone) -> dict[str, Any]:
        return {"vv_start": max(1, clip.depth // 4) if self.vv_start is None else self.vv_start}

    def _rules(self, clip: Backbone) -> Iterator[Rule]:
        yield from super()._rules(clip)
        yield (
            f"dense 'vv' needs an image tower of open_clip's own kind, which {clip.name} has not",
            self.dense != "vv" or hasattr(clip, "position_embedding"),
        )
        yield (
            f"vv_start must lie in 1 to {clip.depth}, {clip.name}'s depth",
            within((certain(self.vv_start),), clip.depth),
        )


class WinCLIPSettings(TrainingFreeSettings):
    """Everything that determines WinCLIP's numbers.

    Backbone (ViT-B/16+ at 240 px, trained on LAION-400M) and scales are the paper's; of the two published
    tags the default is the one that public implementations use, and so is the temperature.

    Attributes:
        scales: sides of the windows in patches; 2 is the paper's small scale, 3 its middle one.
    """

    backbone: str | dict[str, Any] = "ViT-B-16-plus-240"
    clip_weights: str | None = "laion400m_e31"
    temperature: Positive = 0.07
    smoothing_sigma: NotNegative = 0.0
    scales: tuple[int, ...] = (2, 3)

    def _rules(self, clip: Backbone) -> Iterator[Rule]:
        yield from super()._rules(clip)
        side = certain(self.image_size) // max(clip.patch_size)
        yield (
            f"scales must be different integers from 1 to {side}, the patches along a side; at least one",
            within(self.scales, side) and len(set(self.scales)) == len(self.scales),
        )
