"""Training images as tensors: resized and normalised as the detector does it, with masks and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from medzsad.datasets.images import resize_mask
from medzsad.datasets.published import mask_rule
from medzsad.datasets.samples import Sample
from medzsad.detectors.base import AnomalyDetector
from medzsad.training.augmentation import Augmentation, Example, augment, generator_for
from medzsad.training.sampling import Draw
from medzsad.training.slice_stacks import SliceSample
from medzsad.training.sources import OpenedSource


@dataclass(frozen=True)
class InputFormat:
    """What a detector's inputs look like, without the detector, for processes that read images.

    Attributes:
        side: height and width in pixels.
        mean, std: of the normalisation, float32 (3, 1, 1).
        method: the detector's, by which texts have their names for classes.
    """

    side: int
    mean: Tensor
    std: Tensor
    method: str = ""

    @classmethod
    def of(cls, detector: AnomalyDetector) -> InputFormat:
        """Return the format of a detector's inputs."""
        mean, std = (value[0].cpu().clone() for value in (detector.mean, detector.std))
        return cls(detector.image_size, mean, std, detector.method)

    def resize(self, image: Tensor) -> Tensor:
        """As :meth:`AnomalyDetector.preprocess`, less the normalisation: (3, H, W) to (3, side, side)."""
        size = (self.side, self.side)
        if tuple(image.shape[-2:]) == size:
            return image
        return F.interpolate(image[None], size, mode="bicubic", antialias=True, align_corners=False).clamp(
            0, 1
        )[0]

    def resize_mask(self, mask: Tensor, rule: str) -> Tensor:
        """Return a mask (H, W) as uint8 (side, side), by the rule that evaluations of the set have."""
        return torch.from_numpy(resize_mask(mask.numpy() > 0, self.side, rule)).to(torch.uint8)

    def normalise(self, image: Tensor) -> Tensor:
        """Less the mean, over the standard deviation."""
        return (image - self.mean) / self.std


class TrainingSet(Dataset):
    """The images of several data sets, one after another.

    ``training_set[draw]`` gives a dictionary, with the augmentation that the draw decides:
    ``image`` float32 (3, S, S) normalised, ``mask`` uint8 (S, S), ``label``, ``has_mask``, ``class_name``
    (what texts call its class) and ``key``, the data set's and the sample's name. ``training_set[index]``
    gives the image as it is.

    Args:
        sources: the data sets.
        inputs: what the detector takes.
        augmentation: random changes; None for none.
        seed: of the changes.
    """

    def __init__(
        self,
        sources: Sequence[OpenedSource],
        inputs: InputFormat,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.inputs = inputs
        self.seed = seed
        self.sources = tuple(sources)
        self.samples: list[Sample | SliceSample] = [s for source in sources for s in source.samples]
        self._source_of = [number for number, source in enumerate(sources) for _ in source.samples]
        base = augmentation or Augmentation()
        self._augmentations = [
            base
            if augmentation is None or one.source.mosaic is None
            else replace(base, mosaic=one.source.mosaic)
            for one in sources
        ]
        self._rules = [mask_rule(one.name) for one in sources]
        self._names = [
            {one: source.name_in_texts(one, inputs.method) for one in source.classes} for source in sources
        ]
        self._classes: dict[tuple[int, str], list[int]] = {}
        for index, (sample, source) in enumerate(zip(self.samples, self._source_of, strict=True)):
            self._classes.setdefault((source, sample.class_name), []).append(index)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw | int) -> dict[str, Any]:
        index = draw if isinstance(draw, int) else draw.image
        sample, source = self.samples[index], self._source_of[index]
        example = self.example(index)
        if not isinstance(draw, int):
            mates = self._classes[source, sample.class_name]
            example = augment(
                example,
                self._augmentations[source],
                generator_for(self.seed, draw.epoch, draw.position),
                mates=mates,
                load=self._stored,
                resize=partial(self._resized, rule=self._rules[source]),
            )
        return {
            "image": self.inputs.normalise(example.image),
            "mask": (example.mask > 0).to(torch.uint8),
            "label": int(example.label),
            "has_mask": example.has_mask,
            "class_name": self._names[source][sample.class_name],
            "key": f"{self.sources[source].name}/{sample.id}",
        }

    def example(self, index: int) -> Example:
        """Return an image at the detector's size, in [0, 1].

        Raises:
            BadInput: if the file cannot be read.
        """
        return self._resized(self._stored(index), self._rules[self._source_of[index]])

    def _resized(self, example: Example, rule: str) -> Example:
        image, mask = self.inputs.resize(example.image), self.inputs.resize_mask(example.mask, rule)
        return example._replace(image=image, mask=mask)

    def _stored(self, index: int) -> Example:
        """Return an image at its own size; a slice as a detector is shown it."""
        sample = self.samples[index]
        if isinstance(sample, SliceSample):
            image, mask = sample.read_square()
            return Example(image, mask.to(torch.uint8), sample.label)
        image = torch.from_numpy(sample.read_image())
        # In a set without masks, those of its normal images would teach that its domain has no anomalies.
        known = sample.mask is not None or (
            not sample.label and self.sources[self._source_of[index]].level != "image"
        )
        mask = torch.zeros(image.shape[-2:], dtype=torch.uint8)
        if sample.mask is not None:
            rule = self._rules[self._source_of[index]]
            mask = torch.from_numpy(sample.read_mask(rule)).to(torch.uint8)
        return Example(image, mask, sample.label, known)
