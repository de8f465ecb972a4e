"""What detectors with a frozen CLIP inside share: the backbone by its settings, checkpoints without it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import PurePath
from typing import Any, ClassVar, Self, TypeVar

from torch import Tensor

from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.checkpoint import Checkpoint, check_fingerprint
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.generic import GenericCLIP, is_generic
from medzsad.detectors.clip.settings import CLIPSettings
from medzsad.errors import BadInput, ModelNotReady

Weights = str | os.PathLike[str] | Mapping[str, Tensor]
Config = TypeVar("Config", bound=CLIPSettings)


class CLIPDetector(AnomalyDetector):
    """A detector that compares features of a frozen CLIP with features of texts.

    Attributes:
        clip: the backbone.
        config: the settings, with every None decided for it.
        text_features: float32 (2, D), row 0 normal, row 1 abnormal.
    """

    clip: FrozenCLIP | GenericCLIP
    config: CLIPSettings
    text_features: Tensor
    made_with: ClassVar[str] = "the detector was trained with"
    """What was done with the CLIP weights that a checkpoint names."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the numbers, JSON-serialisable; of a weights file its name alone."""
        values = asdict(self.config)
        if values["clip_weights"]:
            values["clip_weights"] = PurePath(values["clip_weights"]).name
        return {**values, "class_name": self.class_name, "precision": self.precision}

    def at_size(self, side: int) -> Self:
        """Return the detector at another size; see the base class. The position embedding is resized."""
        other = self._at_size(side, math.lcm(*self.clip.patch_size))
        try:
            replace(self.config, image_size=side).resolve(self.clip)
        except ModelNotReady as error:
            raise BadInput(f"`first_pass` {side}: {error}") from error
        return other

    def _keep_texts(self, text_features: Tensor) -> None:
        """Make finished text features the detector's own.

        Raises:
            ModelNotReady: if they are not of the backbone's size.
        """
        if text_features.shape != (2, self.clip.embed_dim):
            raise ModelNotReady(
                f"text features {tuple(text_features.shape)} do not fit {self.clip.name}: "
                f"needed is (2, {self.clip.embed_dim})"
            )
        self.register_buffer("text_features", text_features.detach().float().clone())

    def _checkpoint(self, tensors: Mapping[str, Tensor]) -> Checkpoint:
        """Return ``tensors`` and the settings as a checkpoint, without the backbone's weights."""
        settings = {
            **asdict(self.config),
            "threshold": self.threshold,
            "clip_fingerprint": self.clip.fingerprint(),
        }
        stored = {name: tensor.detach().float().cpu().clone() for name, tensor in tensors.items()}
        return Checkpoint(self.method, stored, settings=settings)

    @classmethod
    def _read(cls, checkpoint: Checkpoint, kind: type[Config]) -> tuple[Config, float | str]:
        """Return the settings in a checkpoint, and the threshold of the map.

        Raises:
            ModelNotReady: if it is another method's, or its settings are not this version's.
        """
        stored = cls.own_settings(checkpoint)
        threshold = stored.pop("threshold", 0.5)
        stored.pop("clip_fingerprint", None)
        return kind.from_dict(stored), threshold

    @classmethod
    def _clip_of(
        cls, checkpoint: Checkpoint, config: CLIPSettings, clip_weights: Weights | None, *, text: bool
    ) -> Any:
        """Return the backbone, of the method's class, of a checkpoint whose settings are ``config``.

        Raises:
            ModelNotReady: if its weights are missing, do not fit, or are others than the checkpoint's.
        """
        require_named_weights(config, clip_weights)
        clip = cls._build_clip(config, clip_weights, text=text)
        stored = checkpoint.settings.get("clip_fingerprint")
        check_fingerprint(stored, clip, config.clip_weights, made=cls.made_with)
        return clip

    @staticmethod
    def _build_clip(
        config: CLIPSettings, clip_weights: Weights | None, *, text: bool
    ) -> FrozenCLIP | GenericCLIP:
        return build_clip(config, clip_weights, text=text)


def stored_texts(checkpoint: Checkpoint) -> Tensor:
    """Return the finished text features in a checkpoint.

    Raises:
        ModelNotReady: if there are none.
    """
    if "text_features" not in checkpoint.tensors:
        raise ModelNotReady("the checkpoint holds no text_features")
    return checkpoint.tensors["text_features"]


def build_clip(config: CLIPSettings, clip_weights: Weights | None = None, *, text: bool) -> FrozenCLIP:
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
    config: CLIPSettings, clip_weights: Weights | None = None, *, text: bool
) -> FrozenCLIP | GenericCLIP:
    """As :func:`build_clip`, but ``config.backbone`` may also be ``hf-hub:`` or ``local-dir:`` something.

    Raises:
        ModelNotReady: as :meth:`FrozenCLIP.build` and :meth:`GenericCLIP.build`.
    """
    if not is_generic(config.backbone):
        return build_clip(config, clip_weights, text=text)
    weights = config.clip_weights if clip_weights is None else clip_weights
    return GenericCLIP.build(config.backbone, weights, text=text)


def require_named_weights(config: CLIPSettings, clip_weights: Weights | None) -> None:
    """Refuses random weights, which are of no use outside tests and training.

    Raises:
        ModelNotReady: if neither ``config`` nor ``clip_weights`` names weights for a backbone that needs it.
    """
    if clip_weights is None and config.clip_weights is None and not is_generic(config.backbone):
        raise ModelNotReady("the checkpoint names no CLIP weights; give `clip_weights`")
