"""The detector of one cohort, which knows the images of that cohort and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.mutual.scoring import calibrated
from medzsad.detectors.scoring import gaussian_smooth, upsample
from medzsad.errors import BadInput

SMOOTHING = 4.0
"""Sigma of maps at the backbone's input, in pixels, as of the detector that knows normal images."""
DIGEST = 16  # bytes


@dataclass(frozen=True)
class CohortScores:
    """What is known of a cohort's images.

    Attributes:
        digests: uint8 (N, 16), of :func:`digest_of`.
        maps: float32 (N, h, w), scores of patches.
        scores: float32 (N,), scores of images.
        scale: float32 (N, 2), centre and limit, see :func:`.scoring.centre_and_limit`.
    """

    digests: Tensor
    maps: Tensor
    scores: Tensor
    scale: Tensor

    @classmethod
    def joined(cls, cohorts: Sequence[CohortScores]) -> CohortScores:
        """Return several cohorts as one; each keeps its scale. An image that two have is the first's."""
        return cls(*(torch.cat([getattr(each, name) for each in cohorts]) for name in cls.__annotations__))


class MutualDetector(AnomalyDetector):
    """Gives for each image of a cohort the map that the others gave it.

    Args:
        cohort: what is known of it.
        image_size: side of the maps in pixels.
        settings: what its numbers depend on, JSON-serialisable.
    """

    method = "mutual"
    bounded_in_bf16: ClassVar[bool] = False
    digests: Tensor
    maps: Tensor
    scores: Tensor
    scale: Tensor

    def __init__(self, cohort: CohortScores, *, image_size: int, settings: Mapping[str, Any]) -> None:
        super().__init__(image_size=image_size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        count = len(cohort.digests)
        shapes = [(count, DIGEST), (count, *cohort.maps.shape[1:3]), (count,), (count, 2)]
        for (name, tensor), shape in zip(vars(cohort).items(), shapes, strict=True):
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{name} is {tuple(tensor.shape)}, not {shape}")
            self.register_buffer(name, tensor)
        self._settings = dict(settings)
        rows = cohort.digests.to(torch.uint8).tolist()
        self._rows = {bytes(digest): row for row, digest in reversed(list(enumerate(rows)))}
        self.name = f"mutual ({self._settings.get('features', '?')})"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the numbers, JSON-serialisable."""
        return super().settings | self._settings

    @torch.inference_mode()
    def predict_at_own_size(self, images: Tensor) -> Prediction:
        """Return the prediction of images (B, 3, H, W) of the cohort; see :meth:`AnomalyDetector.forward`.

        Raises:
            BadInput: if one of them is not of it.
        """
        rows = torch.tensor([self._row(image) for image in images], device=self.device)
        centre, limit = self.scale[rows].T
        maps = whole_maps(self.maps[rows], self.image_size)
        maps = calibrated(maps, centre.view(-1, 1, 1), limit.view(-1, 1, 1))
        score = calibrated(self.scores[rows], centre, limit)
        return Prediction(maps, score, score)

    def _row(self, image: Tensor) -> int:
        row = self._rows.get(digest_of(image))
        if row is None:
            raise BadInput(
                "an image is not of the cohort that was scored: the file has changed meanwhile, or the "
                "model is used for other scans; run `mutual` again"
            )
        return row

    def detect(self, inputs: Tensor) -> Prediction:
        raise NotImplementedError("images are known as they are given")

    def check_graph(self) -> None:
        raise BadInput(f"{self.name} knows the images of one cohort; it cannot be a graph")

    def to_checkpoint(self) -> Checkpoint:
        tensors = {name: getattr(self, name) for name in CohortScores.__annotations__}
        return Checkpoint(self.method, tensors, self._settings | {"image_size": self.image_size})

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> Self:
        settings = cls.own_settings(checkpoint)
        cohort = CohortScores(**{name: checkpoint.tensors[name] for name in CohortScores.__annotations__})
        return cls(cohort, image_size=int(settings.pop("image_size")), settings=settings)


def digest_of(image: Tensor) -> bytes:
    """Return 16 bytes that an image is known by, from its shape and its values as float32."""
    pixels = image.detach().to("cpu", torch.float32).contiguous()
    return hashlib.sha256(str(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).digest()[:DIGEST]


def whole_maps(maps: Tensor, side: int) -> Tensor:
    """Return scores of patches (B, h, w) as those of pixels, smoothed: float32 (B, side, side)."""
    return gaussian_smooth(upsample(maps, (side, side)), SMOOTHING)
