"""Small detectors of medzsad-mini's kind with random weights, parts of them, and what they are shown."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.mini.colour import ColourNetwork, learned
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.mini.slices import SliceNetwork
from medzsad.detectors.volume_intensity import encode

SMALL = {"widths": (8, 8, 16, 16), "depth": 1, "heads": 2, "pixel_width": 8}


def detector_of_images(**settings: Any) -> MedzsadMini:
    """For images of 48 pixels, with a network for colours over EfficientNet-Lite0."""
    torch.manual_seed(0)
    return MedzsadMini(image_size=48, network=SMALL, colour="lite0", photographs=True, **settings)


def detector_of_slices() -> MedzsadMini:
    """For images of 48 pixels and for slices of 64, with a network for these."""
    torch.manual_seed(0)
    return MedzsadMini(
        image_size=48, slice_size=64, network=SMALL, colour=True, neighbour_mm=3.0, slice_threshold=0.2
    )


def pictures() -> tuple[Tensor, Tensor, Tensor]:
    """In colour, grey and filling the picture, grey with air around."""
    noise = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(3)) * 0.8 + 0.2
    surface = noise[:, :1].expand(-1, 3, -1, -1).contiguous()
    scan = surface.clone()
    scan[..., :6, :6] = 0
    return noise, surface, scan


def slices(batch: int, side: int = 64) -> Tensor:
    """Squares of noise in standard deviations, each with the slices below and above, air around."""
    r = torch.Generator().manual_seed(5)
    inside = torch.zeros(batch, 3, side, side)
    inside[:, :, 8:-8, 8:-8] = 1
    return encode(torch.randn(batch, 3, side, side, generator=r), inside)


def network_for_slices(**settings: Any) -> Checkpoint:
    """What the training of a network for slices of 64 pixels writes."""
    torch.manual_seed(2)
    tensors = {name: tensor.half() for name, tensor in SliceNetwork(**SMALL).state_dict().items()}
    return Checkpoint("mini", tensors, {"image_size": 64, "network": SMALL, **settings}, {"seed": 7})


def network_for_colours() -> Checkpoint:
    """What the training of a network for colours or ultrasound writes."""
    torch.manual_seed(3)
    network = ColourNetwork()
    tensors = {name: tensor.half() for name, tensor in learned(network).items()}
    settings = {"image_size": 48, "colour": "lite0", "encoder": network.encoder.digest}
    return Checkpoint("mini", tensors, settings, {"seed": 3})
