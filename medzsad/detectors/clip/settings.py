"""What the settings of all CLIP-based detectors have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from medzsad.errors import ModelNotReady
from medzsad.settings import Settings

if TYPE_CHECKING:
    from medzsad.detectors.clip.backbone import FrozenCLIP
    from medzsad.detectors.clip.generic import GenericCLIP

    Backbone = FrozenCLIP | GenericCLIP

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Rule = tuple[str, bool]
"""What must hold, in words, and whether it does."""


def _spelt(name: str) -> str:
    if not name.replace("-", " ").strip():  # as texts spell it
        raise ValueError("class_name must not be empty")
    return name


ClassName = Annotated[str, AfterValidator(_spelt)]


class CLIPSettings(Settings, refusal=ModelNotReady):
    """The backbone of a CLIP-based detector, and what it is shown.

    Attributes:
        backbone: open_clip's name of a ViT, or its configuration ``{embed_dim, vision_cfg, text_cfg}``.
        clip_weights: the pretrained tag (or file) that the detector was trained with.
        quick_gelu: the backbone's activation; None for what its weights need.
        position_mode: ``"bilinear"`` or ``"bicubic"`` resizing of the position embedding.
        image_size: side of the input in pixels, a multiple of the patch size; None for the backbone's own.
    """

    backbone: str | dict[str, Any] = "ViT-L-14-336"
    clip_weights: str | None = "openai"
    quick_gelu: bool | None = None
    position_mode: Literal["bilinear", "bicubic"] = "bicubic"
    image_size: int | None = None

    def resolve(self, clip: Backbone) -> Self:
        """Return the same settings with every None decided for ``clip``.

        Raises:
            ModelNotReady: if a value does not fit ``clip``.
        """
        native, _ = clip.visual.image_size
        size = native if self.image_size is None else self.image_size
        decided = replace(self, quick_gelu=clip.quick_gelu, image_size=size, **self._decided(clip))
        for rule, holds in decided._rules(clip):
            if not holds:
                raise ModelNotReady(f"{type(self).__name__.removesuffix('Settings')} settings: {rule}")
        return decided

    def _decided(self, clip: Backbone) -> dict[str, Any]:
        """Return values for the Nones of a subclass."""
        return {}

    def _rules(self, clip: Backbone) -> Iterator[Rule]:
        """Yield what must hold of decided settings; those of a subclass come after these."""
        size, sides = self.image_size or 0, clip.patch_size
        yield (
            f"image_size {size} must be a multiple of {clip.name}'s patch size {sides[0]}",
            size > 0 and not any(size % side for side in sides),
        )


def within(layers: Sequence[int], depth: int) -> bool:
    """Return whether there are layers, and all of them are among 1 to ``depth``."""
    return bool(layers) and min(layers) >= 1 and max(layers) <= depth
