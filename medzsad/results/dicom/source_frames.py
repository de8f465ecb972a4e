"""A prediction on the acquired DICOM slices themselves.

A tilted or unevenly spaced series is resampled to a regular grid before anything looks at it
(:mod:`medzsad.scans.dicom.stack_grid`). DICOM results must lie on the acquired slices, image by image:
the map is brought back by linear interpolation at the world positions of the slices' own pixels. A regular
series has no detour: its values are taken over as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medzsad.errors import BadInput, certain
from medzsad.results.lesions import Lesion
from medzsad.results.prediction import ScanPrediction
from medzsad.scans.affines import LPS_TO_RAS
from medzsad.scans.dicom.frames import Frame
from medzsad.scans.scan import Scan

# Lesion candidates beyond these get no number of their own.
MAX_CANDIDATES = 50
STACK = 2  # the voxel axis that DICOM images are stacked along


@dataclass(frozen=True)
class SourceFrames:
    """Map, mask and candidates of a prediction, one plane per acquired image.

    Attributes:
        frames: the images, along the stack.
        anomaly_map: float32 (N, rows, columns) in [0, 1].
        mask: bool (N, rows, columns): the map at or above the threshold, but in nothing that is hidden.
        labels: uint8 (N, rows, columns): within the mask, the number of the lesion candidate, from 1, in the
            order of ``prediction.lesions``; what belongs to none of the first :data:`MAX_CANDIDATES` has the
            number after the last. 0 elsewhere.
        candidates: the candidates that have a number.
        resampled: whether the values were interpolated.
    """

    frames: tuple[Frame, ...]
    anomaly_map: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    candidates: tuple[Lesion, ...]
    resampled: bool

    @property
    def has_others(self) -> bool:
        """Whether part of the mask belongs to no numbered candidate."""
        return bool((self.labels > len(self.candidates)).any())


def source_frames(prediction: ScanPrediction) -> SourceFrames:
    """Return the prediction on the images that its scan was read from.

    Raises:
        BadInput: the scan was not read from DICOM.
    """
    scan = prediction.scan
    if not scan.frames:
        raise BadInput(f"{scan.source} is not DICOM: DICOM results need DICOM input; leave `dicom` out.")
    resampled = bool(scan.details.get("geometry", {}).get("resampled"))
    candidates = tuple(prediction.lesions[:MAX_CANDIDATES])
    others, hidden = len(candidates) + 1, len(candidates) + 2
    labels = np.minimum(prediction.candidates.labels, others).astype(np.uint8)
    if not resampled:
        arrays = (prediction.anomaly_map, prediction.mask, labels)
        values, mask, numbers = (np.ascontiguousarray(array.transpose(2, 1, 0)) for array in arrays)
        return SourceFrames(scan.frames, values, mask, numbers, candidates, False)
    labels[prediction.above_threshold & (labels == 0)] = hidden
    first = scan.frames[0]
    shape = (len(scan.frames), first.rows, first.columns)
    anomaly_map = np.empty(shape, np.float32)
    on_frames = np.zeros(shape, np.uint8)
    for index, frame in enumerate(scan.frames):
        place = voxel_of_pixel(frame, first, scan.affine)
        anomaly_map[index] = _interpolated(prediction.anomaly_map, place, shape[1:])
    # As in ScanPrediction.mask: at a threshold of 0 the background must not become suspicious.
    mask = (anomaly_map >= prediction.threshold) & (anomaly_map > 0)
    for index, frame in enumerate(scan.frames):
        place = voxel_of_pixel(frame, first, scan.affine)
        rows, columns = np.nonzero(mask[index])
        voxels = place[:, :2] @ np.stack([rows, columns]) + place[:, 2:]
        found = _label_beside(labels, voxels)
        found[found == 0] = others
        found[found == hidden] = 0
        on_frames[index][rows, columns] = found
    return SourceFrames(scan.frames, anomaly_map, on_frames > 0, on_frames, candidates, True)


def voxel_of_pixel(frame: Frame, first: Frame, affine: np.ndarray) -> np.ndarray:
    """float64 (3, 3): from (row, column, 1) of an image to the voxel index of a grid.

    Args:
        frame: the image; its place is its own.
        first: gives spacing and orientation, which the series shares up to rounding.
        affine: voxel index to RAS+ mm.
    """
    to_world = np.zeros((3, 3))
    axes, spacing = certain(first.axes), certain(first.spacing)
    to_world[:, 0] = axes[1] * spacing[1]
    to_world[:, 1] = axes[0] * spacing[0]
    to_world[:, 2] = frame.position
    inverse = np.linalg.inv(affine)
    place = inverse[:3, :3] @ LPS_TO_RAS[:3, :3] @ to_world
    place[:, 2] += inverse[:3, 3]
    return place


def _interpolated(volume: np.ndarray, place: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """float32 (rows, columns): the volume, linearly interpolated in a plane."""
    from scipy import ndimage

    matrix = np.zeros((3, 3))  # from (0, row, column)
    matrix[:, 1:] = place[:, :2]
    options = {"output_shape": (1, *shape), "output": np.float32, "order": 1, "mode": "nearest"}
    return ndimage.affine_transform(volume, matrix, offset=place[:, 2], **options)[0]


def _label_beside(labels: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """uint8 (N,): the label that the eight voxels around each place (3, N) have, as far as they have one.

    All of them that are in the mask touch, so they are of one component. One is, wherever the interpolated
    value reaches the threshold: a mean is no larger than its largest.
    """
    last = np.array(labels.shape)[:, None] - 1
    low = np.clip(np.floor(voxels + 1e-6), 0, last).astype(np.intp)
    found = np.zeros(voxels.shape[1], np.uint8)
    for step in np.ndindex(2, 2, 2):
        corner = np.minimum(low + np.array(step)[:, None], last)
        np.maximum(found, labels[tuple(corner)], out=found)
    return found


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
