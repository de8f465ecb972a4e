"""What a detector of slices is shown of a volume: intensities in standard deviations of the whole volume.

A detector whose :attr:`~medzsad.detectors.base.AnomalyDetector.neighbour_mm` is a distance gets three slices
as the three channels of an image: its own, one below and one above, that far away. Values stay in [0, 1], as
for every detector; here they hold standard deviations from :data:`LOWEST` to :data:`HIGHEST`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from medzsad.scans.intensity import IntensityScaling

LOWEST, HIGHEST = -4.0, 8.0
MOST_VOXELS = 2_000_000  # that mean and deviation are computed from


def encode(deviations: Tensor, foreground: Tensor) -> Tensor:
    """Standard deviations as image values in [0, 1], 0 outside ``foreground``."""
    return ((deviations - LOWEST) / (HIGHEST - LOWEST)).clamp(0, 1) * foreground


def decode(images: Tensor) -> Tensor:
    """The inverse of :func:`encode` inside the foreground; outside, :data:`LOWEST`."""
    return images * (HIGHEST - LOWEST) + LOWEST


def standardised(scaling: IntensityScaling, voxels: np.ndarray, foreground: np.ndarray) -> IntensityScaling:
    """The scaling to standard deviations of the foreground, far beyond the range that ``scaling`` clips to.

    Mean and deviation are of the clipped values, so that a few extremes do not decide. Of several windows,
    the first counts.

    Args:
        scaling: of the scan, to [0, 1].
        voxels: (X, Y, Z), the scan's values.
        foreground: bool (X, Y, Z), not empty.
    """
    step = max(1, int(np.count_nonzero(foreground)) // MOST_VOXELS)
    low, high = scaling.low[0], scaling.high[0]
    inside = np.clip(voxels[foreground][::step].astype(np.float64), low, high)
    mean, deviation = float(inside.mean()), float(inside.std())
    deviation = max(deviation, 1e-3 * (high - low))
    lowest, highest = mean + LOWEST * deviation, mean + HIGHEST * deviation
    return replace(scaling, low=(lowest,) * 3, high=(highest,) * 3)
