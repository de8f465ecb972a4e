"""medzsad-mini: the small embedded detector, HeadCLIP's image side in miniature.

As in HeadCLIP (arXiv 2505.22259), features are compared by cosine similarity with one "normal" and one
"abnormal" feature, a temperature and a softmax turn the two similarities into a map and a probability, and
the joint anomaly score mixes that probability with the maximum of the smoothed map. Unlike HeadCLIP there is
no text encoder (both features are stored), the stem is convolutional, two stages also see the left-right
mirror image of their features, and a decoder with skips brings the map to half the input's resolution. Images
in colour may have a second network of the same kind. It is trained on synthetic anomalies
(``tools/train_mini.py``).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.errors import ModelNotReady

FOREGROUND_LEVEL = 0.03  # grey values up to this count as the black around a scan
COLOUR_LEVEL = 0.03  # from this mean difference between channels on, an image is one in colour
COLOUR_PREFIX = "colour."  # of the second network's tensors in a checkpoint
INPUT_FEATURES = 7
POSITION_GRID = 12  # side of the stored grid of position embeddings; other sizes are interpolated


def input_features(images: Tensor) -> Tensor:
    """What the network sees of an image, without learned parameters.

    The grey value is given twice, raw and standardised over the foreground, so that neither the intensity
    window nor the amount of black padding matters much.

    Args:
        images: float32 (B, 3, H, W) in [0, 1].

    Returns:
        float32 (B, 7, H, W): grey, standardised grey, two colour differences, foreground, distance from the
        vertical middle line and height (the last two in [-0.5, 0.5]).
    """
    batch, _, height, width = images.shape
    grey = images.mean(1, keepdim=True)
    foreground = (grey > FOREGROUND_LEVEL).to(grey.dtype)
    count = foreground.sum((2, 3), keepdim=True).clamp_min(1)
    centre = (grey * foreground).sum((2, 3), keepdim=True) / count
    spread = ((grey - centre).square() * foreground).sum((2, 3), keepdim=True).div(count).sqrt()
    standardised = ((grey - centre) / (spread + 0.02)).clamp(-4, 4) * foreground
    y = torch.linspace(-0.5, 0.5, height, device=grey.device, dtype=grey.dtype)
    x = torch.linspace(-1, 1, width, device=grey.device, dtype=grey.dtype).abs() - 0.5
    return torch.cat(
        [
            2 * grey - 0.5,
            standardised,
            2 * (images[:, :1] - grey),
            2 * (images[:, 2:] - grey),
            foreground,
            x.view(1, 1, 1, width).expand(batch, 1, height, width),
            y.view(1, 1, height, 1).expand(batch, 1, height, width),
        ],
        1,
    )


def gaussian_smooth(maps: Tensor, sigma: float) -> Tensor:
    """Smooths maps (B, H, W) with a Gaussian of ``sigma`` pixels, borders reflected; 0 leaves them alone."""
    if sigma <= 0:
        return maps
    reach = min(int(3 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    offsets = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    padded = F.pad(maps[:, None], (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


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
    """Lets every place see the features at its left-right mirror place, and how far they differ."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mirrored = F.avg_pool2d(x.flip(-1), 3, 1, 1)  # blurred: scans are never exactly centred
        return x + self.mix(torch.cat([mirrored, (x - mirrored).abs()], 1))


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
        qkv = self.qkv(self.norm_1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm_2(x))


class StatePair(nn.Module):
    """Stored features of "normal" (row 0) and "abnormal" (row 1), in place of HeadCLIP's text features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(2, width))
        self.log_scale = nn.Parameter(torch.tensor(2.66))  # 1 / 0.07, CLIP's temperature

    def forward(self, features: Tensor) -> Tensor:
        """Cosine similarities over the temperature: (B, C, ...) to float32 logits (B, 2, ...)."""
        features = features.float()
        # Dividing the two similarities by the feature's length spares normalising all C channels.
        length = features.square().sum(1, keepdim=True).clamp_min(1e-12).sqrt()
        similarity = (
            torch.einsum("bc...,sc->bs...", features, F.normalize(self.features.float(), dim=1)) / length
        )
        return similarity * self.log_scale.clamp(max=4.6).exp()


class MiniNetwork(nn.Module):
    """The network: 1/2, 1/4, 1/8 convolutional stages, a transformer at 1/16, a decoder back to 1/2.

    Args:
        widths: channels at 1/2, 1/4, 1/8 and 1/16 of the input's side (multiples of 8).
        depth: transformer blocks.
        heads: attention heads.
        pixel_width: channels of the feature that is compared per pixel.
    """

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
        self.stage_2 = nn.Sequential(ConvUnit(INPUT_FEATURES, half, 2), ConvUnit(half, half))
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
        """Computes logits.

        Args:
            images: float32 (B, 3, S, S) in [0, 1], S a multiple of 16.

        Returns:
            Pixel logits float32 (B, 2, S/2, S/2) and image logits float32 (B, 2); column 1 is "abnormal".
        """
        x = input_features(images).contiguous(memory_format=torch.channels_last)
        half = self.stage_2(x)
        quarter = self.stage_4(half)
        eighth = self.stage_8(quarter)
        deep = self.stage_16(eighth)
        batch, width, height, side = deep.shape
        positions = self.positions
        if (height, side) != positions.shape[-2:]:
            positions = F.interpolate(positions, (height, side), mode="bilinear", align_corners=False)
        tokens = (deep + positions).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.image_token.expand(batch, -1, -1).to(tokens.dtype), tokens], 1)
        tokens = self.norm(self.blocks(tokens))
        deep = tokens[:, 1:].transpose(1, 2).reshape(batch, width, height, side)
        fused = self.fuse_8(eighth + _double(self.lateral_8(deep)))
        image = self.image_head(torch.cat([tokens[:, 0], fused.amax((2, 3)).to(tokens.dtype)], 1))
        fused = self.fuse_4(quarter + _double(self.lateral_4(fused)))
        fused = self.fuse_2(half + _double(self.lateral_2(fused)))
        return self.pixel_states(self.pixel_head(fused)), self.image_states(image)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def is_colour(images: Tensor) -> Tensor:
    """Whether images show colours: radiology does not, cameras and endoscopes do.

    Args:
        images: float32 (B, 3, H, W) in [0, 1].

    Returns:
        bool (B,): whether the largest and the smallest channel differ by more than :data:`COLOUR_LEVEL` on
        average, outside black. The tint that compression leaves in grey images is far below that.
    """
    spread = images.amax(1) - images.amin(1)
    foreground = (images.mean(1) > FOREGROUND_LEVEL).to(images.dtype)
    mean = (spread * foreground).sum((1, 2)) / foreground.sum((1, 2)).clamp_min(1)
    return mean > COLOUR_LEVEL


class MedzsadMini(AnomalyDetector):
    """The embedded default detector.

    Args:
        image_size: side of the square input, a multiple of 16.
        threshold: default threshold of the anomaly map, chosen on held-out synthetic images.
        score_mix: the joint score is ``(1 - score_mix) * p_image + score_mix * max(smoothed map)``.
        smoothing: sigma of the map's Gaussian smoothing, in pixels of the map (half the input's side).
        flip: average each prediction with that of the left-right mirrored image.
        network: the sizes of :class:`MiniNetwork`.
        colour: have a second network of the same sizes for images in colour (:func:`is_colour`).

    Raises:
        ValueError: if ``image_size`` is not a positive multiple of 16.
    """

    method: ClassVar[str] = "mini"
    framing: ClassVar[str] = "foreground"

    def __init__(
        self,
        *,
        image_size: int = 192,
        threshold: float | str = 0.5,
        score_mix: float = 0.5,
        smoothing: float = 1.0,
        flip: bool = True,
        network: dict[str, Any] | None = None,
        colour: bool = False,
    ) -> None:
        if image_size <= 0 or image_size % 16:
            raise ValueError(f"image_size must be a positive multiple of 16, got {image_size}")
        # Mean 0 and std 1: the network standardises each image by itself (input_features).
        super().__init__(image_size=image_size, mean=(0, 0, 0), std=(1, 1, 1), threshold=threshold)
        self.score_mix = float(score_mix)
        self.smoothing = float(smoothing)
        self.flip = bool(flip)
        self.network_settings = dict(network or {})
        self.network = MiniNetwork(**self.network_settings).to(memory_format=torch.channels_last)
        self.colour_network: MiniNetwork | None = None
        if colour:
            second = MiniNetwork(**self.network_settings)
            self.colour_network = second.to(memory_format=torch.channels_last)
        self.eval()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the numbers, JSON-serialisable."""
        return {
            **super().settings,
            "score_mix": self.score_mix,
            "smoothing": self.smoothing,
            "flip": self.flip,
            "colour": self.colour_network is not None,
        }

    def detect(self, inputs: Tensor) -> Prediction:
        """Predicts; the map is half the size of ``inputs``, float32 (B, image_size / 2, image_size / 2).

        Args:
            inputs: float32 (B, 3, image_size, image_size) in [0, 1].
        """
        if self.colour_network is None:
            return self._detect(self.network, inputs)
        # Image by image, so that an image's numbers do not depend on what else is in the batch.
        coloured = is_colour(inputs)
        if not coloured.any() or coloured.all():
            return self._detect(self.colour_network if coloured.any() else self.network, inputs)
        parts = [
            (chosen, self._detect(network, inputs[chosen]))
            for chosen, network in ((coloured, self.colour_network), (~coloured, self.network))
        ]
        whole = [value.new_empty(len(inputs), *value.shape[1:]) for value in parts[0][1]]
        for chosen, part in parts:
            for target, value in zip(whole, part, strict=True):
                target[chosen] = value
        return Prediction(*whole)

    def _detect(self, network: MiniNetwork, inputs: Tensor) -> Prediction:
        batch = inputs.shape[0]
        if self.flip:
            inputs = torch.cat([inputs, inputs.flip(-1)])
        pixel, image = network(inputs)
        maps, probability = pixel.float().softmax(1)[:, 1], image.float().softmax(1)[:, 1]
        if self.flip:
            maps = (maps[:batch] + maps[batch:].flip(-1)) / 2
            probability = (probability[:batch] + probability[batch:]) / 2
        with torch.autocast(inputs.device.type, enabled=False):
            maps = gaussian_smooth(maps, self.smoothing)
        score = (1 - self.score_mix) * probability + self.score_mix * maps.amax((1, 2))
        return Prediction(maps, score, probability)

    def to_checkpoint(self) -> Checkpoint:
        """The networks' weights in float16 (half the file, no measurable change) and the settings."""
        tensors = self.network.state_dict()
        if self.colour_network is not None:
            second = self.colour_network.state_dict()
            tensors |= {f"{COLOUR_PREFIX}{name}": tensor for name, tensor in second.items()}
        return Checkpoint(
            method=self.method,
            tensors={name: tensor.half() for name, tensor in tensors.items()},
            settings={
                "image_size": self.image_size,
                "threshold": self.threshold,
                "score_mix": self.score_mix,
                "smoothing": self.smoothing,
                "flip": self.flip,
                "network": self.network_settings,
                "colour": self.colour_network is not None,
            },
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> MedzsadMini:
        """Builds the detector; ``clip_weights`` is ignored, for nothing of CLIP is used.

        Raises:
            ModelNotReady: if the checkpoint is another method's, or its tensors do not fit its settings.
        """
        if checkpoint.method != cls.method:
            raise ModelNotReady(f"a checkpoint of method {checkpoint.method!r}, not {cls.method!r}")
        try:
            detector = cls(**checkpoint.settings)
            first = {k: v.float() for k, v in checkpoint.tensors.items() if not k.startswith(COLOUR_PREFIX)}
            detector.network.load_state_dict(first)
            if detector.colour_network is not None:
                second = {
                    k.removeprefix(COLOUR_PREFIX): v.float()
                    for k, v in checkpoint.tensors.items()
                    if k.startswith(COLOUR_PREFIX)
                }
                detector.colour_network.load_state_dict(second)
        except (TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]  # torch lists every key after it
            raise ModelNotReady(f"the checkpoint does not fit medzsad-mini: {reason}") from error
        return detector
