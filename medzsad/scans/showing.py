"""What a detector with networks of its own for grey and for coloured images is shown of a scan.

Whether a scan is in colour is decided by what it is (its modality and photometric interpretation), never by a
difference between channels alone: several CT windows differ, too, and a head CT that went through a network
for endoscopy gave a wrong answer that looked right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from medzsad.scans.intensity import IntensityScaling
from medzsad.scans.scan import Modality, Scan

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, as Pillow's "L"
GREY, COLOUR = "grey", "colour"


def kind_of(scan: Scan) -> str:
    """Return ``"colour"`` for photographs and videos in colour, ``"grey"`` for all radiology."""
    return COLOUR if scan.is_colour and scan.modality is Modality.RGB else GREY


def as_shown(scan: Scan, scaling: IntensityScaling) -> Callable[[np.ndarray], np.ndarray]:
    """Return the scaling whose three channels are equal unless the scan is one in colour.

    Of several windows the first is kept; colours in radiology (flow in an ultrasound) become grey.

    Args:
        scan: decides.
        scaling: of its voxels, (...[, 3]) to float32 (3, ...) in [0, 1].
    """
    if kind_of(scan) == COLOUR:
        return scaling
    if not scan.is_colour:
        return replace(scaling, low=(scaling.low[0],) * 3, high=(scaling.high[0],) * 3)

    def grey(voxels: np.ndarray) -> np.ndarray:
        level = np.tensordot(LUMINANCE, scaling(voxels), axes=1)
        return np.ascontiguousarray(np.broadcast_to(level, (3, *level.shape)))

    return grey


def is_radiology(modality: str | None) -> bool:
    """Return whether what a data set says of its images means that colours in them are none of their own.

    Args:
        modality: a name of :class:`Modality`; None where nothing is said, as of data of one's own.
    """
    return modality is not None and Modality(modality) is not Modality.RGB


def window_note(window: str | None) -> str | None:
    """Return what to say where only the first of several windows is shown; None of a single one."""
    if window is None or "+" not in window:
        return None
    return f"This detector reads one window at a time: only the first of {window} counts."
