"""All slices at a small size first; those that score highest again at the detector's own.

What a CLIP costs grows with the square of the side and more, so a first look at 224 pixels is an eighth of
one at 518. Values at two sizes are not of one scale: what was only seen small is brought to the scale of the
rest by the slices that were seen both ways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medzsad.errors import BadInput
from medzsad.limits import SMALLEST_SIDE

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.inference.slicewise import SliceWiseOutput

REFINED = 1 / 3
"""Share of the slices that are predicted again, the highest scores first."""

LARGEST_SIDE = 2048
FLATTEST = 1e-6
"""Deviation of values below which they are one value."""

STEEPEST = 4.0
"""Largest slope of the line, and the inverse of the smallest: beyond, noise would be taken for contrast."""


def parse_first_pass(side: int | None) -> int:
    """Return the side of the first pass in pixels; 0 for none.

    Raises:
        BadInput: what is no side of an image.
    """
    if side is None:
        return 0
    if isinstance(side, bool) or not isinstance(side, int) or not SMALLEST_SIDE <= side <= LARGEST_SIDE:
        raise BadInput(f"`first_pass` {side}: give a side in pixels, from {SMALLEST_SIDE} to {LARGEST_SIDE}")
    return side


def check_first_pass(detector: AnomalyDetector, side: int) -> None:
    """Refuse a first pass that the detector cannot make.

    Raises:
        BadInput: if it works at one size alone, or not at this one.
    """
    if len(detector.parts) > 1:
        raise BadInput("`first_pass` does not go with `normals`: a profile knows features of one size alone.")
    detector.at_size(side)


def first_pass_note(side: int, detector: AnomalyDetector, outputs: Sequence[SliceWiseOutput]) -> str:
    """Return a note of what was predicted at which size."""
    slices = sum(len(output.indices) for output in outputs)
    refined = sum(output.refined for output in outputs)
    brain = ", and so is the brain in the others" if detector.marks_brain else ""
    return (
        f"first pass at {side} pixels: {refined} of {slices} slices were predicted again at "
        f"{detector.image_size}, the others are as they were seen small{brain}"
    )


def worth_refining(indices: Sequence[int], scores: Sequence[float]) -> list[int]:
    """Return the slices to predict again: a :data:`REFINED` part, at least one, ascending.

    >>> worth_refining([4, 5, 6, 7, 8, 9], [0.1, 0.2, 0.9, 0.3, 0.8, 0.2])
    [6, 8]

    Args:
        indices: of the slices.
        scores: of the first pass.
    """
    highest = np.argsort(-np.asarray(scores), kind="stable")[: refined_of(len(indices))]
    return sorted(indices[place] for place in highest)


def refined_of(count: int) -> int:
    """Return how many of so many slices are predicted again."""
    return math.ceil(REFINED * count)


def merged_scores(
    indices: Sequence[int], first: Sequence[float], refined: Sequence[int], second: Sequence[float]
) -> list[float]:
    """Return the scores of all slices: of the second pass where there is one, else the first's, shifted.

    >>> merged_scores([4, 5, 6], [0.2, 0.4, 0.1], [5], [0.5])
    [0.3, 0.5, 0.2]

    Args:
        indices: of all slices.
        first: their scores of the first pass.
        refined: those of the second.
        second: their scores in it; the shift is the median difference.
    """
    before, after = dict(zip(indices, first, strict=True)), dict(zip(refined, second, strict=True))
    shift = float(np.median([after[index] - before[index] for index in refined]))
    return [
        after[index] if index in after else round(min(1.0, max(0.0, before[index] + shift)), 9)
        for index in indices
    ]


@dataclass
class Moments:
    """Count, sums and sums of squares of values seen both ways: what the scale is found from.

    Attributes:
        count: of values.
        small: sum and sum of squares at the size of the first pass.
        large: the same at the detector's size.
    """

    count: int = 0
    small: tuple[float, float] = (0.0, 0.0)
    large: tuple[float, float] = (0.0, 0.0)

    def add(self, small: np.ndarray, large: np.ndarray) -> None:
        """Add values of one slice, float32 (N,) each."""
        self.count += small.size
        self.small, self.large = (
            (
                sums[0] + float(values.sum(dtype=np.float64)),
                sums[1] + float(np.square(values).sum(dtype=np.float64)),
            )
            for sums, values in ((self.small, small), (self.large, large))
        )

    def line(self) -> tuple[float, float]:
        """Return slope and offset that give what was seen small the mean and the deviation of the rest."""
        if not self.count:
            return 1.0, 0.0
        (small, small_spread), (large, large_spread) = (self._of(sums) for sums in (self.small, self.large))
        slope = large_spread / small_spread if small_spread > FLATTEST else 1.0
        slope = min(STEEPEST, max(1 / STEEPEST, slope))
        return slope, large - slope * small

    def _of(self, sums: tuple[float, float]) -> tuple[float, float]:
        mean = sums[0] / self.count
        return mean, math.sqrt(max(0.0, sums[1] / self.count - mean * mean))
