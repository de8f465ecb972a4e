"""What detector tests share."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def rule_tensor() -> Callable[[str, tuple[int, ...], int], Tensor]:
    """The rule that gives the weights of the reference models, by name, shape and seed."""

    def make(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
        key = (zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF
        x = np.random.RandomState(key).standard_normal(shape)
        parts = name.split(".")
        if name == "logit_scale":
            x = np.full(shape, np.log(1 / 0.07))
        elif parts[-1] == "weight" and any(part.startswith("ln_") for part in parts):
            x = 1 + 0.1 * x
        elif parts[-1] in ("bias", "in_proj_bias"):
            x = 0.05 * x
        elif name.startswith("prompt_learner.") or "static_prompts" in name:
            x = 0.2 * x
        elif "embedding" in name:
            x = 0.1 * x
        elif name in ("text_projection", "visual.proj"):
            x = 1.5 * x / np.sqrt(shape[0])
        else:
            x = 1.5 * x / np.sqrt(np.prod(shape[1:]))
        return torch.from_numpy(np.asarray(x, dtype=np.float32))

    return make
