"""Slice-wise inference: a volume is cut into slices, each is predicted, the maps become a volume again.

Nothing here needs MONAI, whose import takes longer than to predict a small scan; its inferer is
:class:`medzsad.monai.AnomalyInferer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.volume_intensity import standardised
from medzsad.limits import check_batch
from medzsad.scans.slices import STACK_AXIS, CanonicalView, Plane, pixel_spacing, slice_image

# A slice with less foreground than this part of the largest slice's is noise at the edge of the body.
EMPTY_FRACTION = 0.002
# Room left around the foreground, as part of its larger side.
MARGIN = 0.02


@dataclass(frozen=True)
class SliceWiseOutput:
    """What slice-wise inference returns for one volume.

    Attributes:
        anomaly_map: float32 (X, Y, Z) in [0, 1], canonical axes; 0 outside the foreground.
        indices: canonical index of each computed slice along the stacking axis.
        scores: image score of each computed slice.
        probabilities: image probability of each computed slice.
    """

    anomaly_map: np.ndarray
    indices: list[int]
    scores: list[float]
    probabilities: list[float]


class SliceWisePredictor:
    """Runs a 2D detector over the slices of a volume.

    Slices without foreground are not computed; the others are cropped to the foreground of the whole volume
    (so that the scale is the same in every slice), brought to square pixels, padded with black to a square of
    the detector's size and sent through in batches. Maps are brought back to the voxels slice by slice, so
    memory is bounded by the volume, its map and one batch. A detector with a ``neighbour_mm`` sees with each
    slice those that far below and above (:mod:`medzsad.detectors.volume_intensity`); at the ends of the
    volume the last slice stands for what would lie beyond.

    Args:
        plane: axial, coronal or sagittal.
        spacing: voxel spacing in mm along the canonical axes.
        prepare: maps voxels (...[, 3]) to float32 (3, ...) in [0, 1], e.g. an ``IntensityScaling``. By
            default the volume is taken to be in [0, 1] already.
        batch_size: slices at once; ``None`` chooses by device and image size. Halved where memory runs out.
        progress: wraps the iterable of slice indices (e.g. ``tqdm``); gets ``total``.
    """

    def __init__(
        self,
        plane: Plane,
        spacing: tuple[float, float, float],
        *,
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
        batch_size: int | None = None,
        progress: Callable[..., Iterable[int]] | None = None,
    ) -> None:
        if plane not in STACK_AXIS:
            raise ValueError(f"plane must be axial, coronal or sagittal, got {plane}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.plane = plane
        self.spacing = spacing
        self.prepare = prepare or _stack_channels
        self.batch_size = batch_size
        self.progress = progress

    def __call__(
        self, inputs: np.ndarray | Tensor, network: AnomalyDetector, foreground: np.ndarray | None = None
    ) -> SliceWiseOutput:
        """Predicts one volume.

        Args:
            inputs: (X, Y, Z[, 3]) in canonical axes.
            network: the detector.
            foreground: bool (X, Y, Z) in canonical axes; everything by default.
        """
        volume = np.asarray(inputs)
        shape = volume.shape[:3]
        foreground = np.ones(shape, dtype=bool) if foreground is None else foreground
        view = CanonicalView((0, 1, 2), (False, False, False), shape, self.spacing)
        anomaly_map = np.zeros(shape, dtype=np.float32)
        indices = self._non_empty(foreground)
        if not indices:
            return SliceWiseOutput(anomaly_map, [], [], [])
        image = self._image
        if network.neighbour_mm is not None:
            image = self._with_neighbours(volume, foreground, network.neighbour_mm)
        frame = SliceFrame.around(foreground, self.plane, pixel_spacing(view, self.plane), network.image_size)

        scores: list[float] = []
        probabilities: list[float] = []
        batch_size = self.batch_size or default_batch_size(network)
        check_batch(network.image_size, batch_size, f"a batch of {batch_size} slices")
        queue = iter(self.progress(indices, total=len(indices)) if self.progress else indices)
        for batch in _batches(queue, batch_size):
            images = torch.stack([frame.cut(image(volume, foreground, index)) for index in batch])
            for part in _predict_within_memory(network, images):
                maps = frame.put_back(part.anomaly_map).cpu().numpy()
                start = len(scores)
                for offset, one in enumerate(maps):
                    index = indices[start + offset]
                    target = slice_image(anomaly_map, self.plane, index)[frame.window]
                    inside = slice_image(foreground, self.plane, index)[frame.window]
                    np.multiply(one, inside, out=target)
                scores += part.image_score.tolist()
                probabilities += part.image_probability.tolist()
        return SliceWiseOutput(anomaly_map, indices, scores, probabilities)

    def _image(self, volume: np.ndarray, foreground: np.ndarray, index: int) -> np.ndarray:
        """Slice ``index`` as displayed: float32 (3, rows, columns) in [0, 1], 0 outside the foreground."""
        image = self.prepare(slice_image(volume, self.plane, index))
        return image * slice_image(foreground, self.plane, index)

    def _with_neighbours(
        self, volume: np.ndarray, foreground: np.ndarray, neighbour_mm: float
    ) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
        """As :meth:`_image`, of a slice and those below and above, in deviations of the whole volume."""
        if volume.ndim != 3:
            raise ValueError(
                "a detector that sees neighbouring slices takes grey volumes: for_volume(colour=True)"
            )
        prepare = standardised(self.prepare, volume, foreground)
        axis = STACK_AXIS[self.plane]
        apart = max(1, round(neighbour_mm / self.spacing[axis]))
        last = volume.shape[axis] - 1

        def image(volume: np.ndarray, foreground: np.ndarray, index: int) -> np.ndarray:
            return np.stack(
                [
                    prepare(slice_image(volume, self.plane, at)) * slice_image(foreground, self.plane, at)
                    for at in (index, max(0, index - apart), min(last, index + apart))
                ]
            )

        return image

    def _non_empty(self, foreground: np.ndarray) -> list[int]:
        axis = STACK_AXIS[self.plane]
        counts = foreground.sum(axis=tuple(other for other in range(3) if other != axis))
        return np.flatnonzero(counts > EMPTY_FRACTION * max(int(counts.max()), 1)).tolist()


@dataclass(frozen=True)
class SliceFrame:
    """The square that every slice of a volume is cut to, and how it comes back.

    Attributes:
        window: rows and columns of the displayed slice that are cut out.
        inner: rows and columns of the cut once its pixels are square and fit the detector.
        offset: where ``inner`` lies in the padded square.
        side: side of the square in pixels.
    """

    window: tuple[slice, slice]
    inner: tuple[int, int]
    offset: tuple[int, int]
    side: int

    @classmethod
    def around(
        cls, foreground: np.ndarray, plane: Plane, spacing: tuple[float, float], side: int
    ) -> SliceFrame:
        """The frame of a volume's foreground.

        Args:
            foreground: bool (X, Y, Z), canonical axes.
            plane: that the volume is cut in.
            spacing: of a slice's rows and columns, in mm.
            side: of the square, in pixels.
        """
        seen = slice_image(foreground.any(axis=STACK_AXIS[plane], keepdims=True), plane, 0)
        edges = []
        for axis in range(2):
            used = np.flatnonzero(seen.any(axis=1 - axis))
            edges.append((int(used[0]), int(used[-1]) + 1))
        room = MARGIN * max((stop - start) * mm for (start, stop), mm in zip(edges, spacing, strict=True))
        window = tuple(
            slice(max(0, start - round(room / mm)), min(limit, stop + round(room / mm)))
            for (start, stop), mm, limit in zip(edges, spacing, seen.shape, strict=True)
        )
        millimetres = [(part.stop - part.start) * mm for part, mm in zip(window, spacing, strict=True)]
        scale = side / max(millimetres)
        inner = tuple(max(1, min(side, round(mm * scale))) for mm in millimetres)
        offset = tuple((side - length) // 2 for length in inner)
        return cls(window, inner, offset, side)

    def cut(self, image: np.ndarray) -> Tensor:
        """(3, rows, columns) -> (3, side, side)."""
        patch = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *self.window)], dtype=np.float32))
        patch = F.interpolate(patch[None], self.inner, mode="bicubic", antialias=True, align_corners=False)
        (top, left), (rows, columns) = self.offset, self.inner
        padding = (left, self.side - left - columns, top, self.side - top - rows)
        return F.pad(patch[0].clamp(0, 1), padding)

    def put_back(self, maps: Tensor) -> Tensor:
        """(B, side, side) -> (B, window rows, window columns)."""
        (top, left), (rows, columns) = self.offset, self.inner
        size = tuple(part.stop - part.start for part in self.window)
        maps = maps[:, None, top : top + rows, left : left + columns]
        return F.interpolate(maps, size, mode="bilinear", antialias=True, align_corners=False)[:, 0].clamp(
            0, 1
        )


def default_batch_size(detector: AnomalyDetector) -> int:
    """Slices at once that suit the detector's device and input size."""
    pixels = (detector.image_size / 224) ** 2
    if detector.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(detector.device)
        return int(max(1, min(64, free / 2**30 * 2 / pixels)))
    return int(max(1, min(16, 8 / pixels)))


def _predict_within_memory(network: AnomalyDetector, images: Tensor) -> Iterator:
    """Predicts ``images``, in halves where the accelerator's memory does not hold them at once."""
    try:
        yield network(images)
        return
    except torch.cuda.OutOfMemoryError:
        if len(images) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(images) // 2
    yield from _predict_within_memory(network, images[:half])
    yield from _predict_within_memory(network, images[half:])


def _batches(indices: Iterator[int], size: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in indices:
        batch.append(index)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _stack_channels(voxels: np.ndarray) -> np.ndarray:
    voxels = voxels.astype(np.float32, copy=False)
    return np.moveaxis(voxels, -1, 0) if voxels.ndim == 3 else np.repeat(voxels[None], 3, axis=0)
