"""The numbers that a viewing station shows for the slices of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medzsad.results.dicom.source_frames import voxel_of_pixel
from medzsad.scans.scan import Scan

STACK = 2  # the voxel axis that DICOM images are stacked along


@dataclass(frozen=True)
class ImageNumbers:
    """Which DICOM image each slice is from.

    Attributes:
        numbers: ``InstanceNumber`` of each slice along the third voxel axis; of the nearest acquired image
            where the series was resampled. Empty where the scan is not from DICOM or a number is missing.
        exact: whether each slice is that image, and not interpolated.
    """

    numbers: tuple[int, ...] = ()
    exact: bool = True

    def of(self, axis: int, index: int) -> str:
        """Return ``"image 12"`` (``"near image 12"`` of resampled series), or ``""`` where none is known."""
        if axis != STACK or not self.numbers:
            return ""
        return f"{'' if self.exact else 'near '}image {self.numbers[index]}"


def image_numbers(scan: Scan) -> ImageNumbers:
    """Return the numbers of the DICOM images that a scan was read from."""
    frames, slices = scan.frames, scan.shape[STACK]
    known = {frame.number for frame in frames}
    if None in known or len(known) != len(frames) or not frames:
        return ImageNumbers()  # all the same or missing: they say nothing
    numbers = np.array([frame.number for frame in frames])
    if not scan.details.get("geometry", {}).get("resampled"):
        return ImageNumbers(tuple(numbers.tolist())) if len(frames) == slices else ImageNumbers()
    middle = np.array([(frames[0].rows - 1) / 2, (frames[0].columns - 1) / 2, 1.0])
    places = np.array([(voxel_of_pixel(frame, frames[0], scan.affine) @ middle)[STACK] for frame in frames])
    nearest = np.abs(np.arange(slices)[:, None] - places).argmin(axis=1)
    return ImageNumbers(tuple(numbers[nearest].tolist()), exact=False)
