"""The slices that stand for a result, and each of them as pictures: plain, and under its anomaly map."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medzsad.scans.modality import LUMINANCE
from medzsad.scans.slices import STACK_AXIS, CanonicalView, Plane, other_axes, pixel_spacing, slice_image

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction, SliceScore

# Lesion candidates beyond these neither claim a slice nor are numbered in the picture.
TOP_LESIONS = 9
# A slice shows a lesion when it holds at least this part of what the lesion's best slice holds.
WELL_SHOWN = 0.5
# Room around the foreground, as part of its longest side: for the letters and the scale bar.
MARGIN = 0.04

# Matplotlib's "plasma" is perceptually uniform, and saturated where "inferno" would pale on a bright scan.
# Its lowest part is left out: dark blue would hide the anatomy that it covers.
COLORMAP, COLORMAP_START = "plasma", 0.2
MAX_ALPHA, ALPHA_POWER = 0.8, 1.1
# Cyan lies outside the colour map, and is rare in scans and in endoscopy.
OUTLINE = (0, 229, 255)
AMBER = (255, 190, 80)  # of notices, and of the letters at the edges


@dataclass(frozen=True)
class ShownSlice:
    """A slice picked for display.

    Attributes:
        plane: axial, coronal or sagittal.
        axis: native voxel axis that it is perpendicular to.
        index: native voxel index, from 0.
        canonical_index: index along the plane's canonical stacking axis.
        score: slice score; None where no slice of the plane was scored.
        position_mm: world coordinate along the plane's direction, if known.
        lesions: numbers of the top lesion candidates that it cuts, from 1.
    """

    plane: Plane
    axis: int
    index: int
    canonical_index: int
    score: float | None
    position_mm: float | None
    lesions: tuple[int, ...]


class Montage:
    """The slices of a result that a reader should see first.

    Each plane begins with its highest-scoring slice. Then every top lesion that no slice shows well gets the
    slice that holds most of it; the remaining places go to the next highest scores, but not next to a slice
    already taken: neighbouring slices score much alike, and would all show the same spot.

    Attributes:
        shown: at most ``count`` slices, plane by plane, highest score first. Several planes share them
            evenly; each gets at least one, and its middle slice if none was scored.
        box: the displayed part of the volume, canonical: the foreground and a margin; a 2D image is whole.
        ranks: uint8 (X, Y, Z), native: the number of the top lesion candidate that a voxel belongs to, or 0.
    """

    def __init__(self, result: ScanPrediction, count: int) -> None:
        self.result = result
        self.view = CanonicalView.of(result.scan)
        self.box = _display_box(result, self.view)
        labels = result.candidates.labels
        self.ranks = np.where(labels <= min(TOP_LESIONS, len(result.lesions)), labels, 0).astype(np.uint8)
        self.shown = self._choose(count)

    def _choose(self, count: int) -> list[ShownSlice]:
        result = self.result
        stacks = [_Stack(result, plane, max(1, count // len(result.planes))) for plane in result.planes]
        for stack in stacks:
            stack.take_best()
        profiles = [
            _profiles(result.anomaly_map, self.ranks, number, lesion.bounding_box)
            for number, lesion in enumerate(result.lesions[:TOP_LESIONS], start=1)
        ]
        for profile in profiles:
            if not any(stack.shows(profile) for stack in stacks):
                any(stack.take_lesion(profile) for stack in stacks)
        shown = []
        for stack in stacks:
            stack.fill()
            for index in stack.ranked():
                score = stack.scores.get(index)
                cuts = (n for n, profile in enumerate(profiles, start=1) if profile[stack.axis][index] > 0)
                # A flip is its own inverse: the same call leads from native to canonical.
                canonical = self.view.native_index(STACK_AXIS[stack.plane], index)[1]
                value, position = (None, None) if score is None else (score.score, score.position_mm)
                shown.append(
                    ShownSlice(stack.plane, stack.axis, index, canonical, value, position, tuple(cuts))
                )
        return shown

    def size_mm(self, plane: Plane) -> tuple[float, float]:
        """Width and height of the displayed box in ``plane``."""
        columns, rows = (self.box[axis].stop - self.box[axis].start for axis in other_axes(STACK_AXIS[plane]))
        row_mm, column_mm = pixel_spacing(self.view.spacing, plane)
        return columns * column_mm, rows * row_mm

    def cut(self, array: np.ndarray, piece: ShownSlice) -> np.ndarray:
        """Return the displayed part of a slice of a native ``array`` (X, Y, Z[, C]): (rows, columns[, C])."""
        box = list(self.box)
        box[STACK_AXIS[piece.plane]] = slice(piece.canonical_index, piece.canonical_index + 1)
        return slice_image(self.view.to_canonical(array)[tuple(box)], piece.plane, 0)

    def pictures(self, piece: ShownSlice, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return a slice without and with its anomaly map.

        Args:
            piece: one of :attr:`shown`.
            size: width and height in pixels.

        Returns:
            Two uint8 (height, width, 3).
        """
        result = self.result
        channels = np.nan_to_num(result.scaling(np.ascontiguousarray(self.cut(result.scan.voxels, piece))))
        # The three channels of a grey scan are equal, or CT windows of which the first is the one to read.
        channels = channels if result.scan.is_colour else channels[:1]
        base = np.stack([_resize(channel, size, "BICUBIC") for channel in channels], axis=-1)
        base = np.broadcast_to(base.clip(0, 1), (*base.shape[:2], 3))
        # In grey, for the map's colours cannot be told from red mucosa or skin.
        under = (base @ LUMINANCE)[..., None].repeat(3, axis=2) if result.scan.is_colour else base
        overlay = blend(under, _resize(self.cut(result.anomaly_map, piece), size, "BILINEAR"))
        mask = self.cut(result.mask, piece)
        # In a picture smaller than its slice, even a single voxel of the mask shall leave a trace.
        shrink = min(1.0, size[0] / mask.shape[1]) * min(1.0, size[1] / mask.shape[0])
        overlay[_outline(_resize(mask, size, "BILINEAR") >= 0.5 * shrink)] = np.array(OUTLINE) / 255
        return as_bytes(base), as_bytes(overlay)

    def lesion_corner(self, piece: ShownSlice, number: int) -> tuple[float, float]:
        """Right end of the topmost row of a lesion in a slice, as fractions of the width and the height."""
        inside = self.cut(self.ranks, piece) == number
        row = int(inside.any(axis=1).argmax())
        return (np.flatnonzero(inside[row])[-1] + 1) / inside.shape[1], row / inside.shape[0]


class _Stack:
    """The scored slices of one plane, by native index, and those of them taken so far."""

    def __init__(self, result: ScanPrediction, plane: Plane, places: int) -> None:
        self.plane = plane
        self.axis = CanonicalView.of(result.scan).order[STACK_AXIS[plane]]
        self.scores: dict[int, SliceScore] = {s.index: s for s in result.slice_scores if s.plane == plane}
        self.by_score = sorted(self.scores, key=lambda index: (-self.scores[index].score, index))
        self.middle = result.scan.shape[self.axis] // 2
        self.places = places
        self.gap = max(1, len(self.scores) // (2 * places))
        self.taken: list[int] = []

    def take_best(self) -> None:
        self.taken.extend(self.by_score[:1])

    def shows(self, profiles: tuple[np.ndarray, ...]) -> bool:
        profile = profiles[self.axis]
        return any(profile[index] >= WELL_SHOWN * profile.max() for index in self.taken)

    def take_lesion(self, profiles: tuple[np.ndarray, ...]) -> bool:
        profile = profiles[self.axis]
        best = max(self.scores, key=lambda index: (profile[index], -index), default=None)
        if best is None or profile[best] <= 0 or best in self.taken or len(self.taken) >= self.places:
            return False
        self.taken.append(best)
        return True

    def fill(self) -> None:
        for index in self.by_score:
            if len(self.taken) < self.places and all(abs(index - other) >= self.gap for other in self.taken):
                self.taken.append(index)

    def ranked(self) -> list[int]:
        return sorted(self.taken, key=self.by_score.index) or [self.middle]


def blend(base: np.ndarray, anomaly: np.ndarray) -> np.ndarray:
    """Colours a picture with an anomaly map; the opacity grows with the map, from nothing at 0.

    Args:
        base: float32 (h, w, 3) in [0, 1].
        anomaly: float32 (h, w) in [0, 1].

    Returns:
        float32 (h, w, 3) in [0, 1].
    """
    anomaly = anomaly.clip(0, 1)
    alpha = (MAX_ALPHA * anomaly**ALPHA_POWER)[..., None]
    return base * (1 - alpha) + _colour_table()[np.round(anomaly * 255).astype(np.intp)] * alpha


def as_bytes(image: np.ndarray) -> np.ndarray:
    """uint8 of an image in [0, 1]."""
    return np.round(image.clip(0, 1) * 255).astype(np.uint8)


def _profiles(
    anomaly_map: np.ndarray, ranks: np.ndarray, number: int, bounding_box: tuple[tuple[int, int], ...]
) -> tuple[np.ndarray, ...]:
    """For each native axis, how much of a lesion (the sum of the map in it) each slice holds."""
    box = tuple(slice(first, last + 1) for first, last in bounding_box)
    weights = anomaly_map[box] * (ranks[box] == number)
    profiles = []
    for axis in range(3):
        profile = np.zeros(anomaly_map.shape[axis])
        profile[box[axis]] = weights.sum(axis=other_axes(axis))
        profiles.append(profile)
    return tuple(profiles)


def _display_box(result: ScanPrediction, view: CanonicalView) -> tuple[slice, ...]:
    if result.scan.is_2d:
        return tuple(slice(0, size) for size in view.shape)
    edges = result.foreground_box
    longest = max((stop - start) * mm for (start, stop), mm in zip(edges, view.spacing, strict=True))
    box = []
    for (start, stop), mm, size in zip(edges, view.spacing, view.shape, strict=True):
        margin = math.ceil(MARGIN * longest / mm)
        box.append(slice(max(0, start - margin), min(size, stop + margin)))
    return tuple(box)


def _resize(image: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(picture.resize(size, Image.Resampling[method]))


def _outline(inside: np.ndarray) -> np.ndarray:
    """Return bool (h, w): the line, two pixels wide, between inside and outside."""
    line = np.zeros_like(inside)
    down, across = inside[1:] != inside[:-1], inside[:, 1:] != inside[:, :-1]
    line[1:] |= down
    line[:-1] |= down
    line[:, 1:] |= across
    line[:, :-1] |= across
    return line


@functools.cache
def _colour_table() -> np.ndarray:
    import matplotlib

    return matplotlib.colormaps[COLORMAP](np.linspace(COLORMAP_START, 1, 256))[:, :3].astype(np.float32)
