"""What the tests of frozen features share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture
def photos() -> Tensor:
    """Two images in [0, 1] of 224 pixels, in colour; parts are taken where less is enough."""
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(4))
