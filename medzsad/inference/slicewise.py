"""Slice-wise inference: a volume is cut into slices, each is predicted, the maps become a volume again.

Nothing here needs MONAI, whose import takes longer than to predict a small scan; its inferer is
:class:`medzsad.monai.AnomalyInferer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.normals.combination import highest_evidence, joined_maps, joined_score
from medzsad.detectors.volume_intensity import standardised
from medzsad.inference.first_pass import Moments, merged_scores, refined_of, worth_refining
from medzsad.inference.slice_frame import SliceFrame
from medzsad.inference.slice_step import fill_between, thinned
from medzsad.limits import check_batch
from medzsad.scans.prepared import box_around, slices_worth_computing
from medzsad.scans.slices import STACK_AXIS, Plane, other_axes, pixel_spacing, slice_image


@dataclass(frozen=True)
class SliceWiseOutput:
    """What slice-wise inference returns for one volume.

    Attributes:
        plane: that the volume was cut in.
        anomaly_map: float32 (X, Y, Z) in [0, 1], canonical axes; 0 outside the foreground.
        indices: canonical index of each computed slice along the stacking axis.
        scores: image score of each computed slice.
        probabilities: image probability of each computed slice.
        brain: bool (X, Y, Z), where the detector sees brain; None of one that does not mark it.
        threshold: that the detector has for images that look like these; None where looks decide nothing.
        refined: how many slices were predicted again after a first pass.
    """

    plane: Plane
    anomaly_map: np.ndarray
    indices: list[int]
    scores: list[float]
    probabilities: list[float]
    brain: np.ndarray | None = None
    threshold: float | str | None = None
    refined: int = 0

    def joined(
        self, other: SliceWiseOutput, foreground: np.ndarray, *, keeps_map: bool = False
    ) -> SliceWiseOutput:
        """Return a detector's output together with a profile's for the same slices.

        See :mod:`medzsad.detectors.normals.combination`.

        Args:
            other: the profile's, of the same plane. Both maps are used up.
            foreground: bool (X, Y, Z), what slices' scores are of.
            keeps_map: join only the scores; the map stays the detector's.
        """
        highest = []
        for index in self.indices:
            own, beside, inside = (
                torch.from_numpy(np.ascontiguousarray(slice_image(volume, self.plane, index)))
                for volume in (self.anomaly_map, other.anomaly_map, foreground)
            )
            joined = joined_maps(own, beside) * inside
            highest.append(highest_evidence(joined, inside))
            if not keeps_map:
                slice_image(self.anomaly_map, self.plane, index)[...] = joined.numpy()

        def scores(values: Sequence[float]) -> list[float]:
            pairs = zip(values, highest, strict=True)
            return [float(joined_score(torch.tensor(value), top)) for value, top in pairs]

        return replace(self, scores=scores(self.scores), probabilities=scores(self.probabilities))

    def within(self, region: np.ndarray) -> SliceWiseOutput:
        """Return the output with the map 0 outside ``region``, bool (X, Y, Z), and nothing scored there.

        Slices without a voxel of it are left out; the score of the others is the map's highest value in it,
        for a detector's own score is of the whole slice.
        """
        anomaly_map = self.anomaly_map * region
        others = other_axes(STACK_AXIS[self.plane])
        inside, highest = np.asarray(region.any(axis=others)), anomaly_map.max(axis=others)
        kept = [number for number, index in enumerate(self.indices) if inside[index]]
        indices = [self.indices[number] for number in kept]
        return replace(
            self,
            anomaly_map=anomaly_map,
            indices=indices,
            scores=highest[indices].astype(float).tolist(),
            probabilities=[self.probabilities[number] for number in kept],
        )


class _Work(NamedTuple):
    """What one volume is predicted from and into: canonical axes."""

    volume: np.ndarray
    foreground: np.ndarray
    anomaly_map: np.ndarray
    brain: np.ndarray | None


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
        least_area: slices with less foreground than this part of the largest slice's are left out.
        resolution_mm: of the map along the stack, see :func:`smooth_along_stack`.
        apart_mm: slices that lie closer are not all predicted, see :mod:`medzsad.inference.slice_step`.
        first_pass: side in pixels at which all are predicted first, see :mod:`medzsad.inference.first_pass`;
            0 for none.
    """

    def __init__(
        self,
        plane: Plane,
        spacing: tuple[float, float, float],
        *,
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
        batch_size: int | None = None,
        progress: Callable[..., Iterable[int]] | None = None,
        least_area: float = 0.0,
        resolution_mm: float = 0.0,
        apart_mm: float = 0.0,
        first_pass: int = 0,
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
        self.least_area = least_area
        self.resolution_mm = resolution_mm
        self.apart_mm = apart_mm
        self.first_pass = first_pass

    def __call__(
        self,
        inputs: np.ndarray | Tensor,
        network: AnomalyDetector,
        foreground: np.ndarray | None = None,
        *,
        region: np.ndarray | None = None,
    ) -> SliceWiseOutput:
        """Predicts one volume.

        Args:
            inputs: (X, Y, Z[, 3]) in canonical axes.
            network: the detector.
            foreground: bool (X, Y, Z) in canonical axes; everything by default.
            region: bool (X, Y, Z); slices without a voxel of it are not predicted. None for all slices.
        """
        volume = np.asarray(inputs)
        shape = volume.shape[:3]
        foreground = np.ones(shape, dtype=bool) if foreground is None else foreground
        anomaly_map = np.zeros(shape, dtype=np.float32)
        indices = slices_worth_computing(foreground, self.plane, self.least_area)
        if region is not None:
            wanted = (region & foreground).any(axis=other_axes(STACK_AXIS[self.plane]))
            indices = [index for index in indices if wanted[index]]
        brain = np.zeros(shape, dtype=bool) if network.marks_brain else None
        if not indices:
            return SliceWiseOutput(self.plane, anomaly_map, [], [], [], brain)
        axis = STACK_AXIS[self.plane]
        predicted = thinned(indices, self.apart_mm, self.spacing[axis])
        threshold = None
        if network.tells_colours and network.neighbour_mm is None:
            pixel_mm = pixel_spacing(self.spacing, self.plane)
            frame = SliceFrame.around(foreground, self.plane, pixel_mm, network.image_size)
            image = self.images_of(volume, foreground, frame, None)
            middle = frame.fit(image(predicted[len(predicted) // 2]))
            threshold = network.for_images(middle[None]).threshold

        work = _Work(volume, foreground, anomaly_map, brain)
        refined: list[int] = []
        if self.first_pass:
            scores, probabilities = self._predict_twice(network, predicted, work, refined)
        else:
            scores, probabilities = self._predict(network, self._shown(predicted), predicted, work)
        seen = predicted
        if self.apart_mm > self.resolution_mm:  # too far apart for the smoothing to fill what lies between
            fill_between(anomaly_map, axis, predicted, indices)
            seen = indices
        body = [slice(*edges) for edges in box_around(foreground)]
        body[axis] = slice(None)
        smooth_along_stack(
            anomaly_map[tuple(body)], axis, seen, self.resolution_mm, self.spacing[axis], shown=indices
        )
        anomaly_map *= foreground
        if predicted != indices:
            scores, probabilities = (
                np.interp(indices, predicted, values).tolist() for values in (scores, probabilities)
            )
            if brain is not None:
                fill_between(brain, axis, predicted, indices)
                brain &= foreground
        return SliceWiseOutput(
            self.plane, anomaly_map, indices, scores, probabilities, brain, threshold, len(refined)
        )

    def _shown(self, indices: Iterable[int], total: int | None = None) -> Iterator[int]:
        """Yield slices, as the progress wraps them."""
        if self.progress is None:
            return iter(indices)
        return iter(self.progress(indices, total=len(list(indices)) if total is None else total))

    def _predict(
        self, network: AnomalyDetector, queue: Iterator[int], indices: list[int], work: _Work
    ) -> tuple[list[float], list[float]]:
        """Predict slices into the map, and the brain; return their scores and probabilities.

        ``queue`` yields ``indices``.
        """
        scores: list[float] = []
        probabilities: list[float] = []
        pixel_mm = pixel_spacing(self.spacing, self.plane)
        frame = SliceFrame.around(work.foreground, self.plane, pixel_mm, network.image_size)
        image = self.images_of(work.volume, work.foreground, frame, network.neighbour_mm)
        batch_size = self.batch_size or default_batch_size(network)
        check_batch(network.image_size, batch_size, f"a batch of {batch_size} slices")
        heights = relative_heights(work.foreground, self.plane) if network.uses_heights else None
        for batch in _batches(queue, batch_size):
            images = torch.stack([frame.fit(image(index)) for index in batch])
            where = None if heights is None else heights[batch]
            for part in _predict_within_memory(network, images, where):
                maps = frame.put_back(part.anomaly_map).cpu().numpy()
                brains = maps if work.brain is None else frame.put_back(part.brain).cpu().numpy()
                start = len(scores)
                for offset, one in enumerate(maps):
                    index = indices[start + offset]
                    target = slice_image(work.anomaly_map, self.plane, index)[frame.window]
                    inside = slice_image(work.foreground, self.plane, index)[frame.window]
                    np.multiply(one, inside, out=target)
                    if work.brain is not None:
                        within = slice_image(work.brain, self.plane, index)[frame.window]
                        np.logical_and(brains[offset] > 0.5, inside, out=within)
                scores += part.image_score.tolist()
                probabilities += part.image_probability.tolist()
        return scores, probabilities

    def _predict_twice(
        self, network: AnomalyDetector, indices: list[int], work: _Work, refined: list[int]
    ) -> tuple[list[float], list[float]]:
        """Predict all slices small, and those that score highest again, see :mod:`.first_pass`.

        ``refined`` gets these.
        """

        def both() -> Iterator[int]:
            yield from indices
            yield from refined  # known by then

        queue = self._shown(both(), len(indices) + refined_of(len(indices)))
        small_network = network.at_size(self.first_pass)
        scores, probabilities = self._predict(small_network, islice(queue, len(indices)), indices, work)
        refined += worth_refining(indices, scores)
        inside = [slice_image(work.foreground, self.plane, index) for index in refined]
        small = [
            slice_image(work.anomaly_map, self.plane, index)[where]
            for index, where in zip(refined, inside, strict=True)
        ]
        again = self._predict(network, queue, refined, work)
        moments = Moments()
        for index, where, before in zip(refined, inside, small, strict=True):
            moments.add(before, slice_image(work.anomaly_map, self.plane, index)[where])
        slope, offset = moments.line()
        for index in set(indices) - set(refined):
            part = slice_image(work.anomaly_map, self.plane, index)
            within = slice_image(work.foreground, self.plane, index)
            np.copyto(part, np.clip(slope * part + offset, 0, 1) * within)
        return (
            merged_scores(indices, scores, refined, again[0]),
            merged_scores(indices, probabilities, refined, again[1]),
        )

    def images_of(
        self, volume: np.ndarray, foreground: np.ndarray, frame: SliceFrame, neighbour_mm: float | None
    ) -> Callable[[int], np.ndarray]:
        """Return what makes of a slice's index its part in the frame's window: float32 (3, rows, columns).

        As displayed, in [0, 1], 0 outside the foreground; with a ``neighbour_mm`` the slice and those below
        and above, in deviations of the whole volume.

        Args:
            volume: (X, Y, Z[, 3]) in canonical axes.
            foreground: bool (X, Y, Z).
            frame: that slices are cut to.
            neighbour_mm: of the detector.

        Raises:
            ValueError: on a volume in colour, where neighbours are asked for.
        """

        def part(of: np.ndarray, index: int) -> np.ndarray:
            return slice_image(of, self.plane, index)[frame.window]

        if neighbour_mm is None:
            return lambda index: self.prepare(part(volume, index)) * part(foreground, index)
        if volume.ndim != 3:
            raise ValueError(
                "a detector that sees neighbouring slices takes grey volumes: for_volume(colour=True)"
            )
        deviations = standardised(self.prepare, volume, foreground)
        axis = STACK_AXIS[self.plane]
        apart = max(1, round(neighbour_mm / self.spacing[axis]))
        last = volume.shape[axis] - 1

        @lru_cache(maxsize=4 * apart)  # each slice is soon seen again, as a neighbour
        def scaled(index: int) -> np.ndarray:
            return deviations(part(volume, index)) * part(foreground, index)

        return lambda index: np.stack(
            [scaled(at) for at in (index, max(0, index - apart), min(last, index + apart))]
        )


def smooth_along_stack(
    anomaly_map: np.ndarray,
    axis: int,
    indices: list[int],
    resolution_mm: float,
    spacing_mm: float,
    *,
    shown: list[int] | None = None,
) -> None:
    """Smooth a map along its stack, in place, as if its slices had been ``resolution_mm`` thick.

    A Gaussian of ``sqrt(resolution_mm ** 2 - spacing_mm ** 2)`` mm; thicker slices stay as they are. What
    was not predicted counts for nothing, and stays 0 unless it is to be shown: then the mean of its
    neighbours fills it.

    Args:
        anomaly_map: float32 (X, Y, Z).
        axis: that slices are stacked along.
        indices: of the slices that were predicted.
        resolution_mm: wanted; 0 for no smoothing.
        spacing_mm: of the slices.
        shown: slices that get a map; by default those that were predicted.
    """
    if resolution_mm <= spacing_mm or not indices:
        return
    from scipy.ndimage import gaussian_filter1d

    sigma = (resolution_mm**2 - spacing_mm**2) ** 0.5 / spacing_mm
    predicted = np.zeros(anomaly_map.shape[axis], np.float32)
    predicted[indices] = 1
    weights = gaussian_filter1d(predicted, sigma, mode="constant")
    gaussian_filter1d(anomaly_map, sigma, axis=axis, output=anomaly_map, mode="constant")
    kept = predicted > 0
    kept[indices if shown is None else shown] = True
    factors = np.where(kept, 1 / np.maximum(weights, 1e-6), 0).astype(np.float32)
    anomaly_map *= factors.reshape([-1 if other == axis else 1 for other in range(3)])
    np.clip(anomaly_map, 0, 1, out=anomaly_map)


def default_batch_size(detector: AnomalyDetector) -> int:
    """Slices at once that suit the detector's device and input size."""
    pixels = (detector.image_size / 224) ** 2
    if detector.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(detector.device)
        return int(max(1, min(64, free / 2**30 * 2 / pixels)))
    return int(max(1, min(16, 8 / pixels)))


def relative_heights(foreground: np.ndarray, plane: Plane) -> Tensor:
    """Return where slices lie in a volume: float32 (N,), 0 at the first with foreground, 1 at the last.

    Args:
        foreground: bool (X, Y, Z), canonical axes.
        plane: of the slices.
    """
    axis = STACK_AXIS[plane]
    used = np.flatnonzero(foreground.any(axis=other_axes(axis)))
    places = torch.arange(foreground.shape[axis], dtype=torch.float32)
    return ((places - int(used[0])) / max(1, int(used[-1] - used[0]))).clamp(0, 1)


def _predict_within_memory(network: AnomalyDetector, images: Tensor, heights: Tensor | None) -> Iterator:
    """Predicts ``images``, in halves where the accelerator's memory does not hold them at once."""
    try:
        yield (network if heights is None else network.at_heights(heights))(images)
        return
    except torch.cuda.OutOfMemoryError:
        if len(images) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(images) // 2
    for part in (slice(half), slice(half, None)):
        yield from _predict_within_memory(network, images[part], None if heights is None else heights[part])


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
