"""The network of medzsad-mini, and what it sees of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medzsad.detectors import products

FOREGROUND_LEVEL = 0.03  # grey values up to this count as the black around a scan
INPUT_FEATURES = 7
POSITION_GRID = 12  # side of the stored grid of position embeddings; other sizes are interpolated


def input_features(images: Tensor) -> Tensor:
    """Return what the network sees of an image, without learned parameters.

    The grey value is given twice, raw and standardised over the foreground, so that neither the intensity
    window nor the amount of black padding matters much.

    Args:
        images: float32 (B, 3, H, W) in [0, 1].

    Returns:
        float32 (B, 7, H, W): grey, standardised grey, two colour differences, foreground, distance from the
        vertical middle line and height (the last two in [-0.5, 0.5]).
    """
    grey = images.mean(1, keepdim=True)
    foreground = (grey > FOREGROUND_LEVEL).to(grey.dtype)
    count = foreground.sum((2, 3), keepdim=True).clamp_min(1)
    centre = (grey * foreground).sum((2, 3), keepdim=True) / count
    spread = ((grey - centre).square() * foreground).sum((2, 3), keepdim=True).div(count).sqrt()
    standardised = ((grey - centre) / (spread + 0.02)).clamp(-4, 4) * foreground
    return torch.cat(
        [
            2 * grey - 0.5,
            standardised,
            2 * (images[:, :1] - grey),
            2 * (images[:, 2:] - grey),
            foreground,
            positions_of(images),
        ],
        1,
    )


def positions_of(images: Tensor) -> Tensor:
    """Distance from the vertical middle line and height, in [-0.5, 0.5]: (B, 2, H, W)."""
    batch, _, height, width = images.shape
    y = torch.linspace(-0.5, 0.5, height, device=images.device, dtype=images.dtype)
    x = torch.linspace(-1, 1, width, device=images.device, dtype=images.dtype).abs() - 0.5
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).expand(batch, -1, -1, -1)


def _norm(channels: int) -> nn.GroupNorm:
    # Statistics of the image itself, not of the training set: scans differ from synthetic images.
    return nn.GroupNorm(8, channels)


class ConvUnit(nn.Sequential):
    """3x3 convolution, group norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), _norm(outputs), nn.ReLU(inplace=True)
        )


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions beside an identity path."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), _norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class MirrorUnit(nn.Module):
    """Lets every place see the features at its left-right mirror place, and how far they differ.

    Attributes:
        dropped: share of images that go without in training, so that what is alike on both sides is not
            taken for normal by that alone.
    """

    dropped: float = 0.0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mirrored = F.avg_pool2d(x.flip(-1), 3, 1, 1)  # blurred: scans are never exactly centred
        seen = self.mix(torch.cat([mirrored, (x - mirrored).abs()], 1))
        if self.training and self.dropped:
            seen = seen * (torch.rand(len(x), 1, 1, 1, device=x.device) >= self.dropped)
        return x + seen


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = products.apply(self.qkv, self.norm_1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if torch.is_grad_enabled():
            # Written out: for so few tokens the fused kernel costs a third more of a training step on a CPU.
            weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1).to(value.dtype)
            attended = weights @ value
        else:
            attended = F.scaled_dot_product_attention(query, key, value)
        x = x + products.apply(self.out, attended.transpose(1, 2).reshape(batch, tokens, width))
        return x + products.mlp(self.mlp, self.norm_2(x))


class StatePair(nn.Module):
    """Stored features of "normal" (row 0) and "abnormal" (row 1), in place of HeadCLIP's text features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(2, width))
        self.log_scale = nn.Parameter(torch.tensor(2.66))  # 1 / 0.07, CLIP's temperature

    def forward(self, features: Tensor) -> Tensor:
        """Cosine similarities over the temperature: (B, C, ...) to float32 logits (B, 2, ...)."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            states = F.normalize(self.features.float(), dim=1)
            # Dividing the two similarities by the feature's length spares normalising all C channels.
            length = features.square().sum(1, keepdim=True).clamp_min(1e-12).sqrt()
            similarity = torch.einsum("bc...,sc->bs...", features, states) / length
            return similarity * self.log_scale.clamp(max=4.6).exp()


class MiniNetwork(nn.Module):
    """The network: 1/2, 1/4, 1/8 convolutional stages, a transformer at 1/16, a decoder back to 1/2.

    Args:
        widths: channels at 1/2, 1/4, 1/8 and 1/16 of the input's side (multiples of 8).
        depth: transformer blocks.
        heads: attention heads.
        pixel_width: channels of the feature that is compared per pixel.
    """

    mirrored: ClassVar[bool] = True  # whether predictions are averaged with those of the mirror image
    inputs: ClassVar[int] = INPUT_FEATURES
    features: Callable[[Tensor], Tensor] = staticmethod(input_features)

    def __init__(
        self,
        *,
        widths: tuple[int, int, int, int] = (24, 48, 112, 224),
        depth: int = 5,
        heads: int = 7,
        pixel_width: int = 32,
    ) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = widths
        self.stage_2 = nn.Sequential(ConvUnit(self.inputs, half, 2), ConvUnit(half, half))
        self.stage_4 = nn.Sequential(ConvUnit(half, quarter, 2), ResidualUnit(quarter))
        self.stage_8 = nn.Sequential(ConvUnit(quarter, eighth, 2), MirrorUnit(eighth), ResidualUnit(eighth))
        self.stage_16 = nn.Sequential(ConvUnit(eighth, sixteenth, 2), MirrorUnit(sixteenth))
        self.positions = nn.Parameter(0.02 * torch.randn(1, sixteenth, POSITION_GRID, POSITION_GRID))
        self.image_token = nn.Parameter(0.02 * torch.randn(1, 1, sixteenth))
        self.blocks = nn.Sequential(*(Block(sixteenth, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(sixteenth)
        self.lateral_8 = nn.Conv2d(sixteenth, eighth, 1)
        self.fuse_8 = ResidualUnit(eighth)
        self.lateral_4 = nn.Conv2d(eighth, quarter, 1)
        self.fuse_4 = ResidualUnit(quarter)
        self.lateral_2 = nn.Conv2d(quarter, half, 1)
        self.fuse_2 = ConvUnit(half, half)
        self.pixel_head = nn.Conv2d(half, pixel_width, 1)
        self.pixel_states = StatePair(pixel_width)
        self.image_head = nn.Linear(sixteenth + eighth, sixteenth)
        self.image_states = StatePair(sixteenth)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits.

        Args:
            images: float32 (B, 3, S, S) in [0, 1], S a multiple of 16.

        Returns:
            Pixel logits float32 (B, 2, S/2, S/2) and image logits float32 (B, 2); column 1 is "abnormal".
        """
        decoded, image = self.decode(images)
        return self.pixel_states(self.pixel_head(decoded)), self.image_states(image)

    def decode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features that logits are computed from: of pixels (B, C, S/2, S/2) and images (B, D)."""
        levels, image = self.decoder(images)
        return levels[-1], image

    def decoder(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the decoder's features at 1/16, 1/8, 1/4 and 1/2 of the side, and the image's (B, D)."""
        return self.decoder_of(self.features(images))

    def decoder_of(self, seen: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the same from what the network sees, (B, inputs, S, S)."""
        half = self.stage_2(seen.contiguous(memory_format=torch.channels_last))
        quarter = self.stage_4(half)
        eighth = self.stage_8(quarter)
        deep = self.stage_16(eighth)
        batch, width, height, side = deep.shape
        positions: Tensor = self.positions
        if (height, side) != positions.shape[-2:]:
            positions = F.interpolate(positions, (height, side), mode="bilinear", align_corners=False)
        tokens = (deep + positions).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.image_token.expand(batch, -1, -1).to(tokens.dtype), tokens], 1)
        tokens = self.norm(self.blocks(tokens))
        deep = tokens[:, 1:].transpose(1, 2).reshape(batch, width, height, side)
        fused_8 = self.fuse_8(eighth + _double(self.lateral_8(deep)))
        image = self.image_head(torch.cat([tokens[:, 0], fused_8.amax((2, 3)).to(tokens.dtype)], 1))
        fused_4 = self.fuse_4(quarter + _double(self.lateral_4(fused_8)))
        fused_2 = self.fuse_2(half + _double(self.lateral_2(fused_4)))
        return [deep, fused_8, fused_4, fused_2], image


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
