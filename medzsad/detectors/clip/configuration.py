"""Which CLIP models can be used: open_clip's configurations and what their towers must look like."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import open_clip
from torch import nn

from medzsad.detectors.clip.attention import supports
from medzsad.errors import ModelNotReady

NO_TEXT = {"width": 64, "heads": 1, "layers": 1, "vocab_size": 2, "context_length": 2}
"""The smallest text tower: open_clip builds none without one, and it is thrown away."""


def read_configuration(model: str | Mapping[str, Any], *, text: bool) -> tuple[str, dict[str, Any]]:
    """Return the name and the configuration of a model given by either.

    Args:
        model: open_clip's model name, or ``{embed_dim, vision_cfg, text_cfg}``.
        text: whether the text tower is wanted too.

    Raises:
        ModelNotReady: if the name is unknown, or the towers are of a kind that is not supported.
    """
    if isinstance(model, str):
        name, config = model, open_clip.get_model_config(model)
        if config is None:
            raise ModelNotReady(f"unknown CLIP model {model!r}; open_clip.list_models() lists the names")
    else:
        name, config = "custom", copy.deepcopy(dict(model))
    absent = [
        key for key in ("embed_dim", "vision_cfg", *(["text_cfg"] if text else [])) if key not in config
    ]
    if absent:
        raise ModelNotReady(f"{name}: the CLIP configuration lacks {', '.join(absent)}")
    vision = config["vision_cfg"]
    if vision.get("timm_model_name") or not isinstance(vision.get("layers", 12), int):
        raise ModelNotReady(
            f"{name}: its image tower is not open_clip's own ViT (SigLIP, timm and ResNet are not)"
        )
    if vision.get("attentional_pool") or vision.get("pool_type", "tok") == "none":
        raise ModelNotReady(f"{name}: image towers that pool by attention are not supported")
    if text and config["text_cfg"].get("hf_model_name"):
        raise ModelNotReady(f"{name}: text towers of Hugging Face transformers are not supported")
    return name, config


def every_tag_needs_quick_gelu(model: str) -> bool:
    """Whether all published weights of ``model`` need QuickGELU, so that a local file surely holds such."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    return bool(tags) and all(
        open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False) for tag in tags
    )


def check_image_tower(visual: nn.Module, name: str) -> None:
    """Raise ModelNotReady unless ``visual`` is a ViT whose blocks our attention reproduces."""
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if not blocks or not hasattr(visual, "ln_post") or getattr(visual, "attn_pool", None) is not None:
        raise ModelNotReady(f"{name}: its image tower is not open_clip's own ViT")
    if not all(supports(block) for block in blocks) or visual.proj is None:
        raise ModelNotReady(f"{name}: its image tower's blocks are not those of a plain ViT")


def check_text_tower(text: nn.Module, name: str) -> None:
    """Raise ModelNotReady unless ``text`` is a plain transformer that our attention reproduces."""
    blocks = getattr(getattr(text, "transformer", None), "resblocks", None)
    if not blocks or not all(supports(block) for block in blocks):
        raise ModelNotReady(f"{name}: its text tower is not a plain transformer")
    if text.cls_emb is not None or getattr(text, "use_pad_mask", False) or text.pool_type == "none":
        raise ModelNotReady(f"{name}: text towers with a class token or padding masks are not supported")
