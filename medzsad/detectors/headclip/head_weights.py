"""Learnable weights of attention heads, HeadCLIP's image side (arXiv 2505.22259)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HeadWeights(nn.Module):
    """One learnable scalar per layer and head, for the V-V ("patch") and the ordinary ("image") path.

    Args:
        layers: layers (from 1) with weights.
        heads: heads per layer.
        vv_start: first layer of the V-V path; before it there is no patch path to weight.
        paths, parametrisation: see :class:`~medzsad.detectors.headclip.settings.HeadCLIPSettings`. Whatever
            they are, all weights start at 1.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        heads: int,
        *,
        vv_start: int,
        paths: str = "patch+image",
        parametrisation: str = "raw",
    ) -> None:
        super().__init__()
        self.heads = heads
        self.parametrisation = parametrisation
        chosen = paths.split("+")
        self.layers = {
            "patch": tuple(layer for layer in layers if layer >= vv_start) if "patch" in chosen else (),
            "image": tuple(layers) if "image" in chosen else (),
        }
        start = 1.0 if parametrisation == "raw" else 0.0
        for path, path_layers in self.layers.items():
            values = nn.Parameter(torch.full((len(path_layers), heads), start)) if path_layers else None
            self.register_parameter(path, values)

    def scales(self, path: str) -> dict[int, Tensor]:
        """Layer to weights (heads,), for ``"patch"`` or ``"image"``."""
        values = getattr(self, path)
        if values is None:
            return {}
        if self.parametrisation == "softmax":
            values = self.heads * values.softmax(-1)
        elif self.parametrisation == "sigmoid":
            values = 2 * values.sigmoid()
        return dict(zip(self.layers[path], values.unbind(0), strict=True))
