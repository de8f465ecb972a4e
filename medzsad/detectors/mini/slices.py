"""medzsad-mini's network for slices of volumes, and what it sees of them.

Like the one for images (:class:`~medzsad.detectors.mini.network.MiniNetwork`), with other inputs: three
slices in standard deviations of their volume (:mod:`medzsad.detectors.volume_intensity`), so that a slice
is compared with the whole scan and a lesion is seen to end above and below; and a second output: the brain.
A small U-Net beside it (:class:`SliceUNet`), trained apart from it, errs in other places.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medzsad.detectors.mini.network import ConvUnit, MiniNetwork, ResidualUnit, positions_of
from medzsad.detectors.volume_intensity import decode
from medzsad.errors import certain

SLICE_FEATURES = 9
BODY = 0.05  # encoded values above it are no air
LOCAL = 9  # side of the surroundings that a place is compared with, in quarters of the resolution


def slice_features(images: Tensor) -> Tensor:
    """Return what the network sees of a slice, without learned parameters.

    Args:
        images: float32 (B, 3, H, W) of :func:`~.volume_intensity.encode`: own slice, below, above.

    Returns:
        float32 (B, 9, H, W): deviations from the volume's mean in a narrow window (as a grey image), in a
        wide one, compared with the surroundings, and above 2; the slices below and above; foreground,
        distance from the vertical middle line and height.
    """
    deviations = decode(images)
    foreground = (images[:, :1] > BODY).to(images.dtype)
    own = deviations[:, :1]
    body = (images > BODY).to(images.dtype)
    wide = deviations.clamp(-4, 4) * body
    # Mean and spread of the surroundings, from a quarter of the resolution: cheap, and smooth enough.
    known = torch.cat([wide[:, :1], wide[:, :1].square(), foreground], 1)
    near = F.avg_pool2d(F.avg_pool2d(known, 4), LOCAL, 1, LOCAL // 2)
    near = F.interpolate(near, images.shape[-2:], mode="bilinear", align_corners=False)
    share = near[:, 2:] + 1e-3
    centre = near[:, :1] / share
    spread = F.relu(near[:, 1:2] / share - centre.square()).sqrt()
    local = ((wide[:, :1] - centre) / (spread + 0.15)).clamp(-4, 4) * foreground
    return torch.cat(
        [
            0.4 * own.clamp(-2, 3) + 0.3,
            wide[:, :1],
            local,
            0.5 * (own - 2).clamp(0, 6),  # not own.clamp(2, 8): ONNX's optimiser loses one of two clamps
            foreground,
            positions_of(images),
            wide[:, 1:],
        ],
        1,
    )


class SliceUNet(nn.Module):
    """A small U-Net for lesions and the brain, without attention and without a look at the mirror image.

    Args:
        widths: channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the side (multiples of 8).
        width: channels on the way back, a multiple of 8.
    """

    def __init__(self, widths: Sequence[int] = (24, 40, 64, 96, 128), width: int = 24) -> None:
        super().__init__()
        self.first = ConvUnit(SLICE_FEATURES, widths[0], 2)
        self.down = nn.ModuleList(
            nn.Sequential(ConvUnit(finer, coarser, 2), ResidualUnit(coarser))
            for finer, coarser in pairwise(widths)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in widths)
        self.fuses = nn.ModuleList(ConvUnit(width, width) for _ in widths[1:])
        self.out = nn.Conv2d(width, 2, 1)
        with torch.no_grad():
            certain(self.out.bias)[0] = -4  # lesions are rare

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, S/2, S/2) of lesions and of the brain.

        Args:
            images: float32 (B, 3, S, S) of :func:`~.volume_intensity.encode`.
        """
        return self.marks_of(slice_features(images))

    def marks_of(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same from :func:`slice_features`, (B, 9, S, S)."""
        levels = [self.first(seen.contiguous(memory_format=torch.channels_last))]
        for stage in self.down:
            levels.append(stage(levels[-1]))
        x = self.laterals[-1](levels[-1])
        for level, lateral, fuse in zip(levels[-2::-1], self.laterals[-2::-1], self.fuses, strict=True):
            x = F.interpolate(x, level.shape[-2:], mode="bilinear", align_corners=False)
            x = fuse(lateral(level) + x)
        out = self.out(x)
        return out[:, 0], out[:, 1]


class SliceNetwork(MiniNetwork):
    """:class:`MiniNetwork` on :func:`slice_features`, with a map of the brain beside that of anomalies.

    Args:
        unet_share: have a :class:`SliceUNet` beside it, with this share in the mean of the pixels' logits, in
            (0, 1]; those of the brain are the plain mean. 0 is without one.
        settings: the sizes of :class:`MiniNetwork`.
    """

    mirrored = False
    inputs = SLICE_FEATURES
    features = staticmethod(slice_features)

    def __init__(self, *, unet_share: float = 0.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.brain_head = nn.Conv2d(self.pixel_head.in_channels, 1, 1)
        self.unet_share = unet_share
        self.unet = SliceUNet() if unet_share else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits of pixels and images as :meth:`MiniNetwork.forward` does."""
        return self.marks(images)[:2]

    def marks(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute all logits: of pixels (B, 2, S/2, S/2), images (B, 2) and the brain (B, S/2, S/2).

        Args:
            images: float32 (B, 3, S, S) of :func:`~.volume_intensity.encode`, S a multiple of 16.
        """
        seen = slice_features(images)
        (*_, decoded), image = self.decoder_of(seen)
        pixel, brain = self.pixel_states(self.pixel_head(decoded)), self.brain_head(decoded)[:, 0]
        if self.unet is not None:
            lesions, its_brain = (logits.float() for logits in self.unet.marks_of(seen))
            margin = torch.lerp(pixel[:, 1] - pixel[:, 0], lesions, self.unet_share)
            pixel, brain = torch.stack([torch.zeros_like(margin), margin], 1), (brain + its_brain) / 2
        return pixel, self.image_states(image), brain

    @torch.no_grad()
    def start_from(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a :class:`MiniNetwork` over; what it did not see counts for nothing yet.

        Args:
            state: its ``state_dict``, with the same sizes.
        """
        first = "stage_2.0.0.weight"
        old, new = state[first], torch.zeros_like(self.state_dict()[first])
        new[:, 0], new[:, 1] = old[:, 0], 0.7 * old[:, 1]  # grey value, deviation
        new[:, 2] = 0.3 * old[:, 1]
        new[:, 4:7] = old[:, 4:7]  # foreground and position
        own = self.state_dict()
        self.load_state_dict({**own, **state, first: new})
