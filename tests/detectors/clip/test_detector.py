"""Backbones from settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medzsad.detectors.clip.detector import build_clip, require_named_weights
from medzsad.detectors.clip.settings import CLIPSettings
from medzsad.errors import ModelNotReady


def settings(backbone: str | dict[str, Any], clip_weights: str | None = None) -> CLIPSettings:
    return CLIPSettings(backbone, clip_weights, quick_gelu=True)


def test_settings_reach_the_backbone(tiny_config: dict[str, Any]) -> None:
    clip = build_clip(settings(tiny_config), text=True)
    assert (clip.quick_gelu, clip.position_mode, clip.depth) == (True, "bicubic", 4)
    assert clip.text is not None
    state = {name: tensor + 1 for name, tensor in clip.state_dict().items()}
    other = build_clip(settings(tiny_config, clip_weights="unused.pt"), state, text=False)
    assert other.text is None
    torch.testing.assert_close(other.visual.proj, clip.visual.proj + 1)


def test_weights_must_be_named_unless_the_model_brings_its_own(tiny_config: dict[str, Any]) -> None:
    with pytest.raises(ModelNotReady, match="names no CLIP weights"):
        require_named_weights(settings(tiny_config), None)
    require_named_weights(settings(tiny_config), "weights.pt")
    require_named_weights(settings(tiny_config, clip_weights="openai"), None)
    require_named_weights(settings("hf-hub:owner/name"), None)
