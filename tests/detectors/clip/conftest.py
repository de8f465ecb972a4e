"""Tiny CLIPs, with open_clip's own model beside them."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 56, "layers": 4, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}


@pytest.fixture
def tiny_config() -> dict[str, Any]:
    """The configuration of a CLIP of 4 layers, 2 heads and 4x4 patches."""
    return {name: dict(value) if isinstance(value, dict) else value for name, value in TINY.items()}


@pytest.fixture
def reference(tiny_config: dict[str, Any]) -> open_clip.CLIP:
    """open_clip's own CLIP of ``tiny_config``, in evaluation mode, with weights that matter everywhere."""
    torch.manual_seed(3)
    model = open_clip.CLIP(**tiny_config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and name.endswith(("bias", "weight")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def images() -> Tensor:
    """Two normalised images of the native size."""
    return torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(5))
