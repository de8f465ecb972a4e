"""The trivial references: what one line of image processing finds.

A detector that loses to them is of no use.

They have no weights. Their conventions are ours, chosen so that the figures are those commonly measured with
such references (docs/methods.md says how well they do).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.scoring import gaussian_smooth
from medzsad.errors import ModelNotReady

IMAGE_SIZE = 224
BLACK = 0.03
DEFAULT_SIGMAS = {"brightness": 2.0, "darkness": 2.0, "asymmetry": 4.0}


class Reference(AnomalyDetector):
    """What the three have in common: a grey image, standardised, looked at at 224 pixels.

    Args:
        smoothing_sigma: of the grey image (asymmetry) or the map (brightness, darkness), in pixels.
        standardise: subtract the image's mean, divide by its standard deviation. For the slices of a volume
            this is left out (:meth:`for_volume`): it would make each slice as conspicuous as the next.
    """

    def __init__(self, *, smoothing_sigma: float | None = None, standardise: bool = True) -> None:
        super().__init__(image_size=IMAGE_SIZE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.smoothing_sigma = DEFAULT_SIGMAS[self.method] if smoothing_sigma is None else smoothing_sigma
        self.standardise = standardise
        if not self.smoothing_sigma >= 0:
            raise ModelNotReady(f"{self.method} settings: smoothing_sigma must not be negative")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the numbers, JSON-serialisable."""
        return super().settings | self._own_settings()

    def for_volume(self, *, colour: bool = False) -> Reference:
        """Return the same reference without the standardisation of each image."""
        detector = type(self)(smoothing_sigma=self.smoothing_sigma, standardise=False)
        detector.name, detector.threshold = self.name, self.threshold
        return detector.to(self.device).eval()

    def grey(self, inputs: Tensor) -> Tensor:
        """Images (B, 3, H, W) to float32 (B, H, W): in [0, 1], or of mean 0 and standard deviation 1."""
        grey = inputs.float().mean(1)
        if not self.standardise:
            return grey
        centred = grey - grey.mean((1, 2), keepdim=True)
        return centred / (centred.square().mean((1, 2), keepdim=True).sqrt() + 1e-6)

    def to_checkpoint(self) -> Checkpoint:
        """Return the settings; there are no tensors."""
        return Checkpoint(self.method, {}, settings=self._own_settings() | {"threshold": self.threshold})

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> Reference:
        settings = dict(checkpoint.settings)
        threshold = settings.pop("threshold", 0.5)
        detector = cls.assemble(settings, clip_weights=clip_weights)
        detector.threshold = threshold
        return detector

    @classmethod
    def assemble(
        cls,
        settings: Mapping[str, Any],
        *,
        clip_weights: str | Path | None = None,
        adapter: str | Path | None = None,
        organ: str | None = None,
        class_name: str | None = None,
    ) -> Reference:
        """See the base class."""
        if any(given is not None for given in (clip_weights, adapter, organ, class_name)):
            raise ModelNotReady(f"{cls.method} is plain image processing: it has no weights and no texts")
        unknown = sorted(set(settings) - {"smoothing_sigma", "standardise"})
        if unknown:
            raise ModelNotReady(f"unknown {cls.method} settings: {', '.join(unknown)}")
        return cls(**settings).eval()

    def _own_settings(self) -> dict[str, Any]:
        return {"smoothing_sigma": self.smoothing_sigma, "standardise": self.standardise}


class Brightness(Reference):
    """The smoothed grey value: hyperintense lesions, calcifications, highlights.

    Standardised values go through the logistic function to lie in (0, 1), which keeps their order.
    """

    method: str = "brightness"
    sign: ClassVar[float] = 1.0

    def detect(self, inputs: Tensor) -> Prediction:
        smooth = gaussian_smooth(self.grey(inputs), self.smoothing_sigma)
        if self.standardise:
            maps = torch.sigmoid(self.sign * smooth)
        else:
            maps = smooth if self.sign > 0 else 1 - smooth
        # The black around a scan is darker than any lesion: neither it nor what it is smoothed into decides.
        surroundings = gaussian_smooth((inputs.float().mean(1) <= BLACK).float(), self.smoothing_sigma)
        score = maps.masked_fill(surroundings > 0.01, 0).amax((1, 2))
        return Prediction(maps, score, score)


class Darkness(Brightness):
    """The smoothed darkness: hypointense lesions, holes, cracks."""

    method: str = "darkness"
    sign: ClassVar[float] = -1.0


class Asymmetry(Reference):
    """The difference between an image and its left-right mirror image.

    The map is ``d / (1 + d)`` of the absolute difference d of the smoothed grey values, the image score the
    same of their mean: order-preserving, in [0, 1).
    """

    method: str = "asymmetry"

    def detect(self, inputs: Tensor) -> Prediction:
        smooth = gaussian_smooth(self.grey(inputs), self.smoothing_sigma)
        difference = (smooth - smooth.flip(-1)).abs()
        score = difference.mean((1, 2))
        score = score / (1 + score)
        return Prediction(difference / (1 + difference), score, score)
