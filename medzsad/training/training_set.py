"""Training images as tensors, and which of them a step sees.

They are resized and normalised as the detector does it, with masks and augmentation. Which ones a step sees
is a function of the seed, the epoch and the step, and of nothing else: a stopped training goes on at any
step without going through the data before it, and several processes together see what one process with as
many times the batch would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from medzsad.datasets.images import resize_mask
from medzsad.datasets.published import mask_rule
from medzsad.datasets.samples import Sample
from medzsad.detectors.base import AnomalyDetector
from medzsad.training.augmentation import Augmentation, Example, augment, generator_for
from medzsad.training.slice_stacks import SliceSample
from medzsad.training.sources import OpenedSource


class Draw(NamedTuple):
    """One image of one step.

    Attributes:
        image: its index in the training set.
        epoch: from 0.
        position: of the draw in its epoch, from 0; with ``epoch`` it decides the augmentation.
    """

    image: int
    epoch: int
    position: int


class EpochPlan:
    """The order of the images in each epoch.

    Args:
        sizes: number of images of each data set; the training set holds them one after another.
        weights: how often each image of each data set is seen per epoch, on average: at 0.5 every epoch sees
            another random half, at 2 every image twice.
        seed: of the order.

    Attributes:
        length: draws per epoch.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError("every data set must hold at least one image")
        self.sizes = tuple(sizes)
        self.counts = tuple(max(1, round(n * w)) for n, w in zip(sizes, weights, strict=True))
        self.seed = seed
        self.length = sum(self.counts)

    def order(self, epoch: int) -> np.ndarray:
        """Return indices into the training set, int64 (length,)."""
        parts, start = [], 0
        for number, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            dice = np.random.default_rng([self.seed, epoch, number])
            rounds = [dice.permutation(size) for _ in range(-(-count // size))]
            parts.append(start + np.concatenate(rounds)[:count])
            start += size
        dice = np.random.default_rng([self.seed, epoch, len(self.sizes)])
        return dice.permutation(np.concatenate(parts))


class StepBatches(Sampler[list[Draw]]):
    """The batches of one process, from any step to the end of the training.

    The steps of all epochs follow one another. Every step is full: the last of an epoch is filled with draws
    from its beginning, so that means over parts of a step are means over the step.

    Args:
        plan: the order.
        per_process: images of one process in one step.
        epochs: of the training.
        rank, world_size: of this process, and how many there are.
        start: first step, from 0.
    """

    def __init__(
        self,
        plan: EpochPlan,
        per_process: int,
        epochs: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ) -> None:
        self.plan = plan
        self.per_process = per_process
        self.rank = rank
        self.world_size = world_size
        self.start = start
        self.steps_per_epoch = -(-plan.length // (per_process * world_size))
        self.steps = epochs * self.steps_per_epoch

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[Draw]]:
        order, known = np.empty(0, np.int64), -1
        for step in range(self.start, self.steps):
            epoch, within = divmod(step, self.steps_per_epoch)
            if epoch != known:
                order, known = self.plan.order(epoch), epoch
            first = (within * self.world_size + self.rank) * self.per_process
            positions = [number % len(order) for number in range(first, first + self.per_process)]
            yield [Draw(int(order[position]), epoch, position) for position in positions]


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
