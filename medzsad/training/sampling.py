"""Which images a training step sees: a function of the seed, the epoch and the step, and of nothing else.

So a stopped training goes on at any step without going through the data before it, and several processes
together see what one process with as many times the batch would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


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
