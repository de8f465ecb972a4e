"""From a detector's settings to its backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePath
from typing import Any, Protocol

from torch import Tensor

from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.generic import GenericCLIP, is_generic
from medzsad.errors import ModelNotReady

Weights = str | os.PathLike[str] | Mapping[str, Tensor]


class BackboneSettings(Protocol):
    """The part of a detector's settings that says which backbone it has."""

    @property
    def backbone(self) -> str | dict[str, Any]:
        """open_clip's name of a ViT, or its configuration."""

    @property
    def clip_weights(self) -> str | None:
        """The pretrained tag, or a file."""

    @property
    def quick_gelu(self) -> bool | None:
        """The activation; None for what the weights need."""

    @property
    def position_mode(self) -> str:
        """How the position embedding is resized."""


def build_clip(config: BackboneSettings, clip_weights: Weights | None = None, *, text: bool) -> FrozenCLIP:
    """Return the backbone that ``config`` names, of open_clip's own kind.

    Args:
        config: a detector's settings.
        clip_weights: overrides ``config.clip_weights``; if both are None, weights are random.
        text: also build the text tower.

    Raises:
        ModelNotReady: as :meth:`FrozenCLIP.build`.
    """
    return FrozenCLIP.build(
        config.backbone,
        config.clip_weights if clip_weights is None else clip_weights,
        quick_gelu=config.quick_gelu,
        text=text,
        position_mode=config.position_mode,
    )


def build_any_clip(
    config: BackboneSettings, clip_weights: Weights | None = None, *, text: bool
) -> FrozenCLIP | GenericCLIP:
    """As :func:`build_clip`, but ``config.backbone`` may also be ``hf-hub:`` or ``local-dir:`` something.

    Raises:
        ModelNotReady: as :meth:`FrozenCLIP.build` and :meth:`GenericCLIP.build`.
    """
    if not is_generic(config.backbone):
        return build_clip(config, clip_weights, text=text)
    weights = config.clip_weights if clip_weights is None else clip_weights
    return GenericCLIP.build(config.backbone, weights, text=text)


def public_settings(config: Any) -> dict[str, Any]:
    """Return a detector's settings as results may hold them: of a weights file its name, not its folder."""
    values = asdict(config)
    if values.get("clip_weights"):
        values["clip_weights"] = PurePath(values["clip_weights"]).name
    return values


def require_named_weights(config: BackboneSettings, clip_weights: Weights | None) -> None:
    """Refuses random weights, which are of no use outside tests and training.

    Raises:
        ModelNotReady: if neither ``config`` nor ``clip_weights`` names weights for a backbone that needs it.
    """
    if clip_weights is None and config.clip_weights is None and not is_generic(config.backbone):
        raise ModelNotReady("the checkpoint names no CLIP weights; give `clip_weights`")
