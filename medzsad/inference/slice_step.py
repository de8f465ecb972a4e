"""Fewer slices, nearly the same map: every n-th thin slice is predicted, those between interpolated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medzsad.errors import BadInput

# What "auto" predicts: one slice every so many mm. docs/performance.md has what it costs.
AUTO_MM = 3.0
LARGEST_MM = 100.0
_WORDS = {"all": 0.0, "auto": AUTO_MM}


def parse_slice_step(step: float | str | None) -> float | None:
    """Return the distance in mm of the slices to predict; 0 for all slices, None for what the detector's are.

    Args:
        step: None, ``"all"``, ``"auto"`` for :data:`AUTO_MM`, or a distance in mm.

    Raises:
        BadInput: what is neither.
    """
    if step is None or step in _WORDS:
        return None if step is None else _WORDS[str(step)]
    try:
        distance = float(step)
    except ValueError:
        distance = -1.0
    if not 0 < distance <= LARGEST_MM:
        raise BadInput(
            f"`slice_step` {step!r}: give all, auto, or a distance in mm, above 0 and up to {LARGEST_MM:g}"
        )
    return distance


def thinned(indices: Sequence[int], step_mm: float, spacing_mm: float) -> list[int]:
    """Return the slices to predict: of each run of neighbours the first, the last, and every n-th between.

    >>> thinned([3, 4, 5, 6, 7, 8, 20], step_mm=3.0, spacing_mm=1.0)
    [3, 6, 8, 20]

    Args:
        indices: of the slices worth computing, ascending.
        step_mm: distance of those that are predicted; never exceeded, so all of slices more than half as
            thick are.
        spacing_mm: distance of neighbouring slices.
    """
    every = int(step_mm / spacing_mm + 1e-3)  # spacings such as 1.0000001 are meant to be 1
    if every < 2:
        return list(indices)
    known = set(indices)
    return [i for i in indices if i % every == 0 or i - 1 not in known or i + 1 not in known]


def fill_between(volume: np.ndarray, axis: int, predicted: Sequence[int], wanted: Sequence[int]) -> None:
    """Fill slices that were not predicted, in place, from the predicted ones on both sides.

    Args:
        volume: (X, Y, Z): float32, filled by linear interpolation; or bool, by the nearer neighbour.
        axis: that slices are stacked along.
        predicted: canonical indices of the slices that hold values, ascending; see :func:`thinned`.
        wanted: of all slices that should.
    """
    slices = np.moveaxis(volume, axis, 0)
    there = np.asarray(predicted)
    for index in sorted(set(wanted) - set(predicted)):
        after = int(np.searchsorted(there, index))
        below, above = int(there[after - 1]), int(there[after])
        share = (index - below) / (above - below)
        if volume.dtype == bool:
            slices[index] = slices[below if share <= 0.5 else above]
        else:
            slices[index] = (1 - share) * slices[below] + share * slices[above]
