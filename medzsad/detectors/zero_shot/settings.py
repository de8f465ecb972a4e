"""The settings of the detectors without training: plain CLIP and WinCLIP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

from medzsad.detectors.clip.generic import is_generic
from medzsad.errors import ModelNotReady, certain

if TYPE_CHECKING:
    from medzsad.detectors.clip.backbone import FrozenCLIP
    from medzsad.detectors.clip.generic import GenericCLIP

ENSEMBLES = ("states", "two")
DENSE = ("plain", "vv")


@dataclass(frozen=True)
class TrainingFreeSettings:
    """What plain CLIP and WinCLIP have in common.

    Attributes:
        backbone: open_clip's name of a ViT, its configuration ``{embed_dim, vision_cfg, text_cfg}``, or
            ``hf-hub:owner/name`` / ``local-dir:folder`` of a CLIP whose image tower is timm's ViT.
        clip_weights: the pretrained tag (or file); for ``hf-hub:`` and ``local-dir:`` None takes the weights
            found there, and so does the default tag, which no such model has.
        quick_gelu: the backbone's activation; None for what its weights need.
        position_mode: ``"bilinear"`` or ``"bicubic"`` resizing of the position embedding.
        image_size: side of the input in pixels; None for the backbone's native size.
        temperature: of the softmax over normal and abnormal.
        smoothing_sigma: of the map, in pixels of the input.
        joint_weight: ``a`` of ``(1 - a) * p_image + a * max(map)``; 0 scores by the class token alone.
        organ: what the images show, a name of :mod:`medzsad.detectors.organs`; None for any object.
        class_name: put into the texts instead of the organ's class name.
        ensemble: ``"states"``, all states in all templates, averaged; or ``"two"``, "a photo of a normal ..."
            against "a photo of an anomalous ...".
    """

    backbone: str | dict[str, Any] = "ViT-L-14-336"
    clip_weights: str | None = "openai"
    quick_gelu: bool | None = None
    position_mode: str = "bicubic"
    image_size: int | None = None
    temperature: float = 0.01
    smoothing_sigma: float = 4.0
    joint_weight: float = 0.0
    organ: str | None = None
    class_name: str | None = None
    ensemble: str = "states"

    def __post_init__(self) -> None:
        # The default tag is one of open_clip's own models, not of any that brings its weights along.
        default = type(self).__dataclass_fields__["clip_weights"].default
        if is_generic(self.backbone) and self.clip_weights == default:
            object.__setattr__(self, "clip_weights", None)

    def resolve(self, clip: FrozenCLIP | GenericCLIP) -> Self:
        """Return the same settings with every None decided for ``clip``.

        Raises:
            ModelNotReady: if a value is impossible, or does not fit ``clip``.
        """
        native = tuple(clip.visual.image_size)
        size, sides = native[0] if self.image_size is None else self.image_size, clip.patch_size
        decided = replace(self, quick_gelu=clip.quick_gelu, image_size=size)
        rules = [
            (
                f"image_size {size} must be a multiple of {clip.name}'s patch size {sides[0]}",
                size > 0 and not any(size % side for side in sides),
            ),
            ("temperature must be positive", self.temperature > 0),
            ("smoothing_sigma must not be negative", self.smoothing_sigma >= 0),
            ("joint_weight must lie in [0, 1]", 0 <= self.joint_weight <= 1),
            (
                "class_name must not be empty",
                self.class_name is None or bool(self.class_name.replace("-", " ").strip()),
            ),
            (f"ensemble must be one of {', '.join(ENSEMBLES)}", self.ensemble in ENSEMBLES),
        ]
        if not hasattr(clip, "position_embedding"):
            rules.append((f"image_size must be {native[0]} for {clip.name}", native == (size, size)))
        return decided._decide(clip, rules)

    def _decide(self, clip: FrozenCLIP | GenericCLIP, rules: list[tuple[str, bool]]) -> Self:
        """Check the rules; subclasses decide their own Nones and add their own rules first."""
        for rule, holds in rules:
            if not holds:
                raise ModelNotReady(f"{type(self).__name__.removesuffix('Settings')} settings: {rule}")
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return settings as stored in a checkpoint.

        Raises:
            ModelNotReady: on a setting that this version does not know.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            name = cls.__name__.removesuffix("Settings")
            raise ModelNotReady(f"unknown {name} settings: {', '.join(unknown)}; perhaps of a newer version")
        decoded: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**decoded)


@dataclass(frozen=True)
class PlainCLIPSettings(TrainingFreeSettings):
    """Everything that determines plain CLIP's numbers.

    The temperature is CLIP's own, 1/100; the rest is our choice, after what the field compares itself with.

    Attributes:
        dense: patch features are those of the last layer (``"plain"``), or of the V-V path (``"vv"``).
        vv_start: first layer of the V-V path; None for a quarter of the depth (6 of 24).
    """

    dense: str = "plain"
    vv_start: int | None = None

    def _decide(self, clip: FrozenCLIP | GenericCLIP, rules: list[tuple[str, bool]]) -> Self:
        start = max(1, clip.depth // 4) if self.vv_start is None else self.vv_start
        rules += [
            (f"dense must be one of {', '.join(DENSE)}", self.dense in DENSE),
            (
                f"dense 'vv' needs an image tower of open_clip's own kind, which {clip.name} has not",
                self.dense != "vv" or hasattr(clip, "position_embedding"),
            ),
            (f"vv_start must lie in 1 to {clip.depth}, {clip.name}'s depth", 1 <= start <= clip.depth),
        ]
        return super(PlainCLIPSettings, replace(self, vv_start=start))._decide(clip, rules)


@dataclass(frozen=True)
class WinCLIPSettings(TrainingFreeSettings):
    """Everything that determines WinCLIP's numbers.

    Backbone (ViT-B/16+ at 240 px, trained on LAION-400M) and scales are the paper's; of the two published
    tags the default is the one that public implementations use, and so is the temperature.

    Attributes:
        scales: sides of the windows in patches; 2 is the paper's small scale, 3 its middle one.
    """

    backbone: str | dict[str, Any] = "ViT-B-16-plus-240"
    clip_weights: str | None = "laion400m_e31"
    temperature: float = 0.07
    smoothing_sigma: float = 0.0
    scales: tuple[int, ...] = (2, 3)

    def _decide(self, clip: FrozenCLIP | GenericCLIP, rules: list[tuple[str, bool]]) -> Self:
        side = certain(self.image_size) // max(clip.patch_size)
        scales = tuple(self.scales)
        rules.append(
            (
                f"scales must be different integers from 1 to {side}, the patches along a side; at least one",
                bool(scales)
                and all(isinstance(n, int) and 1 <= n <= side for n in scales)
                and len(set(scales)) == len(scales),
            )
        )
        return super(WinCLIPSettings, replace(self, scales=scales))._decide(clip, rules)
