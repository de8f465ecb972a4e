"""What a detector that compares slices with their volume is shown: standard deviations of the whole volume.

A detector with a :attr:`~medzsad.detectors.base.AnomalyDetector.neighbour_mm` gets three slices as the three
channels of an image: its own, the one below and the one above. Values stay in [0, 1], as for every detector;
here they stand for :data:`LOWEST` to :data:`HIGHEST` standard deviations from the mean of the foreground, and
0 is outside of it. So a lesion far brighter than the display's window is not cut off at its upper end, and a
slice does not look alike whatever the rest of the scan is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from medzsad.scans.intensity import IntensityScaling

LOWEST, HIGHEST = -4.0, 8.0
MOST_VOXELS = 2_000_000  # that mean and deviation are computed from


def encode(deviations: Tensor, foreground: Tensor) -> Tensor:
    """Return standard deviations as image values in [0, 1], 0 outside ``foreground``; any shape."""
    return ((deviations - LOWEST) / (HIGHEST - LOWEST)).clamp(0, 1) * foreground


def decode(images: Tensor) -> Tensor:
    """Return the standard deviations that :func:`encode` was given; :data:`LOWEST` outside the foreground."""
    return images * (HIGHEST - LOWEST) + LOWEST


def standardised(
    prepare: Callable[[np.ndarray], np.ndarray], voxels: np.ndarray, foreground: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the scaling of a volume's voxels (...) to encoded standard deviations, float32 (...) in [0, 1].

    Mean and deviation are those of the foreground in the range that ``prepare`` shows, so that a few extreme
    voxels do not decide; values beyond that range keep their distance, where ``prepare`` is an
    :class:`IntensityScaling`. Of several windows the first counts.

    Args:
        prepare: maps voxels to (3, ...) in [0, 1].
        voxels: (X, Y, Z), the scan's values.
        foreground: bool (X, Y, Z), not empty.
    """
    low, high = 0.0, 1.0
    padding = None
    if isinstance(prepare, IntensityScaling):
        low, high, padding = prepare.low[0], prepare.high[0], prepare.padding

    def values(part: np.ndarray) -> np.ndarray:
        return part if isinstance(prepare, IntensityScaling) else prepare(part)[0]

    step = max(1, int(np.count_nonzero(foreground)) // MOST_VOXELS)
    inside = np.clip(values(voxels[foreground][::step]).astype(np.float64), low, high)
    mean = float(inside.mean())
    deviation = max(float(inside.std()), 1e-3 * (high - low))
    lowest, span = np.float32(mean + LOWEST * deviation), np.float32((HIGHEST - LOWEST) * deviation)

    def scale(part: np.ndarray) -> np.ndarray:
        scaled = np.clip((values(part).astype(np.float32) - lowest) / span, 0, 1)
        if padding is not None:
            scaled[part == np.float32(padding)] = 0
        return scaled

    return scale
