"""medzsad-mini's network for slices of volumes, and what it sees of them.

Like the one for images (:class:`~medzsad.detectors.mini.network.MiniNetwork`), with other inputs: three
slices in standard deviations of their volume (:mod:`medzsad.detectors.volume_intensity`), so that a slice
is compared with the whole scan and a lesion is seen to end above and below; and a second output: the brain.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medzsad.detectors.mini.network import MiniNetwork, positions_of
from medzsad.detectors.volume_intensity import decode

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


class SliceNetwork(MiniNetwork):
    """:class:`MiniNetwork` on :func:`slice_features`, with a map of the brain beside that of anomalies.

    Args:
        settings: the sizes of :class:`MiniNetwork`.
    """

    mirrored = False
    inputs = SLICE_FEATURES
    features = staticmethod(slice_features)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.brain_head = nn.Conv2d(self.pixel_head.in_channels, 1, 1)

    def brain(self, decoded: Tensor) -> Tensor:
        """Logits (B, S/2, S/2) of the brain, from what :meth:`MiniNetwork.decode` gave."""
        return self.brain_head(decoded)[:, 0]

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
