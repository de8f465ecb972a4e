"""Matrices kept in the precision that they are multiplied in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from medzsad.detectors.clip.backbone import FrozenCLIP
    from medzsad.detectors.clip.generic import GenericCLIP


def hold_matrices(clip: FrozenCLIP | GenericCLIP, dtype: torch.dtype) -> None:
    """Store weights and biases of linear layers and convolutions of a CLIP's image tower in ``dtype``.

    Under autocast they are rounded to it in any case, but anew in every forward pass, which for a ViT-L reads
    and writes two gigabytes. The numbers are the same, the memory is half. Layer norms, embeddings and
    positions stay float32, and so does the text tower: it costs little, and all images would share its
    errors. For predicting only: what was rounded cannot be trained, or made exact again.

    Args:
        clip: the CLIP.
        dtype: that of the autocast it will run under; ``torch.float32`` to run it without.
    """
    for module in clip.visual.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.to(dtype)
        for name in ("in_proj_weight", "in_proj_bias"):
            _store(module, name, dtype)


def _store(module: nn.Module, name: str, dtype: torch.dtype) -> None:
    value = getattr(module, name, None)
    if isinstance(value, nn.Parameter):
        setattr(module, name, nn.Parameter(value.detach().to(dtype), requires_grad=value.requires_grad))
