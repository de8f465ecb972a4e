"""EfficientNet-Lite0's first six stages from the weights in the package, frozen, as a part of a network.

The same features as :class:`medzsad.detectors.features.lite0.Lite0Features` without timm, whose import costs
more than a prediction; each batch norm is folded into its convolution.
"""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medzsad.detectors.clip.weights import read_tensors
from medzsad.storage.hashing import hash_tensors

EMBEDDED = "efficientnet-lite0.safetensors"  # in medzsad/weights; its card is beside it
STRIDES = (1, 2, 2, 2, 1, 2)  # of each stage's first block; the stem has 2 as well
CHANNELS = (16, 24, 40, 80, 112, 192)
EPSILON = 1e-3  # of its batch norms


class Convolution(nn.Module):
    """A convolution with its batch norm, padded as TensorFlow pads, then ReLU6 if it is not a block's last.

    Args:
        weight: (O, I, k, k).
        norm: the batch norm's weight, bias, mean and variance, each (O,).
        stride: 1 or 2; sides must be even for 2.
        active: whether ReLU6 follows.
    """

    def __init__(
        self, weight: Tensor, norm: tuple[Tensor, ...], *, stride: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        scale, offset, mean, variance = norm
        scale = scale / (variance + EPSILON).sqrt()
        self.weight = nn.Parameter(weight * scale.view(-1, 1, 1, 1), requires_grad=False)
        self.bias = nn.Parameter(offset - mean * scale, requires_grad=False)
        self.stride, self.active = stride, active
        self.groups = len(weight) if weight.shape[1] == 1 else 1
        spare = weight.shape[-1] - stride
        self.padding = (spare // 2, spare - spare // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        if any(self.padding):
            x = F.pad(x, self.padding)
        x = F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)
        return F.relu6(x) if self.active else x


class Lite0Encoder(nn.Module):
    """Images in, features of the six stages out: at strides 2, 4, 8, 16, 16 and 32.

    Args:
        path: of the weights; None for those in the package.

    Attributes:
        digest: of the weights, see :func:`~medzsad.storage.hashing.hash_tensors`.

    Raises:
        ModelNotReady: if the weights cannot be read.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__()
        path = Path(str(package_files("medzsad"))) / "weights" / EMBEDDED if path is None else path
        tensors = {name: tensor.float() for name, tensor in read_tensors(path)[0].items()}
        self.digest = hash_tensors(tensors)

        def convolution(convolution: str, norm: str, stride: int = 1, active: bool = True) -> Convolution:
            names = ("weight", "bias", "running_mean", "running_var")
            parts = tuple(tensors[f"{norm}.{name}"] for name in names)
            return Convolution(tensors[f"{convolution}.weight"], parts, stride=stride, active=active)

        self.stem = convolution("conv_stem", "bn1", 2)
        self.stages = nn.ModuleList()
        for stage, first in enumerate(STRIDES):
            blocks = nn.ModuleList()
            while (block := f"blocks.{stage}.{len(blocks)}") + ".conv_dw.weight" in tensors:
                stride = 1 if len(blocks) else first
                parts = [
                    ("conv_pw", "bn1", 1, True),
                    ("conv_dw", "bn2", stride, True),
                    ("conv_pwl", "bn3", 1, False),
                ]
                if not stage:  # its block does not widen first
                    parts = [("conv_dw", "bn1", stride, True), ("conv_pw", "bn2", 1, False)]
                blocks.append(
                    nn.Sequential(
                        *(
                            convolution(f"{block}.{name}", f"{block}.{norm}", step, active)
                            for name, norm, step, active in parts
                        )
                    )
                )
            self.stages.append(blocks)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features after each stage, computed in float32 even under autocast.

        Args:
            images: float32 (B, 3, S, S) in [0, 1], S a multiple of 32.
        """
        with torch.autocast(images.device.type, enabled=False):
            x = (images.float() * 2 - 1).contiguous(memory_format=torch.channels_last)
            x = self.stem(x)
            found = []
            for blocks in self.stages:
                for number, block in enumerate(blocks.children()):
                    x = x + block(x) if number else block(x)
                found.append(x)
            return found
