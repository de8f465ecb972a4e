"""medzsad-mini's network for images in colour: a decoder over features that were learned on photographs.

The encoder is EfficientNet-Lite0, trained on ImageNet and frozen, whose weights the package holds once, for
this and for profiles of normal images; a checkpoint of this network holds the decoder alone, and the digest
of the encoder that it was trained with. Decoder and outputs are as in
:class:`~medzsad.detectors.mini.network.MiniNetwork`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medzsad.detectors.mini.lite0 import CHANNELS, Lite0Encoder
from medzsad.detectors.mini.network import Block, ConvUnit, ResidualUnit, StatePair

FINER = 4 / 3  # the encoder sees images this much larger: it was made for objects that fill 224 pixels
ENCODER = "encoder."  # of its tensors, which are not stored


class ColourNetwork(nn.Module):
    """The network: Lite0's features at 1/4 to 1/32, a small transformer at 1/16, a decoder back to 1/4.

    Args:
        encoder: shared with another network; None to read it.
        widths: channels at 1/4, 1/8 and 1/16 of what the encoder sees (multiples of 8).
        depth: transformer blocks.
        heads: attention heads.
        pixel_width: channels of the feature that is compared per pixel.
    """

    mirrored: ClassVar[bool] = False

    def __init__(
        self,
        encoder: Lite0Encoder | None = None,
        *,
        widths: tuple[int, int, int] = (32, 64, 128),
        depth: int = 2,
        heads: int = 4,
        pixel_width: int = 32,
    ) -> None:
        super().__init__()
        self.encoder = Lite0Encoder() if encoder is None else encoder
        quarter, eighth, sixteenth = widths
        self.lateral_16 = _lateral(sum(CHANNELS[3:]), sixteenth)
        self.fuse_16 = ResidualUnit(sixteenth)
        self.image_token = nn.Parameter(0.02 * torch.randn(1, 1, sixteenth))
        self.blocks = nn.Sequential(*(Block(sixteenth, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(sixteenth)
        self.lateral_8, self.down_8 = _lateral(CHANNELS[2], eighth), nn.Conv2d(sixteenth, eighth, 1)
        self.fuse_8 = ResidualUnit(eighth)
        self.lateral_4, self.down_4 = _lateral(CHANNELS[1], quarter), nn.Conv2d(eighth, quarter, 1)
        self.fuse_4 = ConvUnit(quarter, quarter)
        self.pixel_head = nn.Conv2d(quarter, pixel_width, 1)
        self.pixel_states = StatePair(pixel_width)
        self.image_head = nn.Linear(sixteenth + eighth, sixteenth)
        self.image_states = StatePair(sixteenth)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits.

        Args:
            images: float32 (B, 3, S, S) in [0, 1].

        Returns:
            Pixel logits float32 (B, 2, S/2, S/2) and image logits float32 (B, 2); column 1 is "abnormal".
        """
        return self.logits_of(self.features(images), images.shape[-1] // 2)

    def logits_of(self, features: list[Tensor], side: int) -> tuple[Tensor, Tensor]:
        """Return the same from :meth:`features`, those of pixels (B, 2, side, side)."""
        decoded, image = self.decode_features(features)
        return self.pixel_states(self.pixel_head(_to(decoded, side))), self.image_states(image)

    def decode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what logits are computed from: features of pixels (B, C, S/2, S/2) and images (B, D)."""
        decoded, image = self.decode_features(self.features(images))
        return _to(decoded, images.shape[-1] // 2), image

    def features(self, images: Tensor) -> list[Tensor]:
        """Return what the decoder is given of images (B, 3, S, S): Lite0's last five stages, no gradients."""
        side = 32 * max(1, round(images.shape[-1] * FINER / 32))
        with torch.no_grad():
            stages: list[Tensor] = self.encoder(_to(images.float(), side))
        return stages[1:]

    def decode_features(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return features of pixels, at a quarter of what the encoder saw, and of images."""
        quarter, eighth, fourth, fifth, last = features
        deep = torch.cat([fourth, fifth, _to(last, fourth.shape[-1])], 1)
        deep = self.fuse_16(self.lateral_16(deep))
        batch, width, height, side = deep.shape
        tokens = deep.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.image_token.expand(batch, -1, -1).to(tokens.dtype), tokens], 1)
        tokens = self.norm(self.blocks(tokens))
        deep = tokens[:, 1:].transpose(1, 2).reshape(batch, width, height, side)
        fused_8 = self.fuse_8(self.lateral_8(eighth) + _to(self.down_8(deep), eighth.shape[-1]))
        image = self.image_head(torch.cat([tokens[:, 0], fused_8.amax((2, 3)).to(tokens.dtype)], 1))
        fused_4 = self.fuse_4(self.lateral_4(quarter) + _to(self.down_4(fused_8), quarter.shape[-1]))
        return fused_4, image


def learned(network: nn.Module) -> dict[str, Tensor]:
    """Return the state of a network without a frozen encoder, which is what checkpoints hold."""
    return {name: t for name, t in network.state_dict().items() if not name.startswith(ENCODER)}


def load_learned(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a network what :func:`learned` returned.

    Raises:
        RuntimeError: if tensors are missing, of another shape, or too many.
    """
    frozen = {name: t for name, t in network.state_dict().items() if name.startswith(ENCODER)}
    network.load_state_dict({**frozen, **tensors})


def _lateral(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(8, outputs))


def _to(x: Tensor, side: int) -> Tensor:
    if x.shape[-1] == side:
        return x
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
