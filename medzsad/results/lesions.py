"""From a map to lesion candidates: the threshold, and the connected components above it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medzsad.errors import BadInput
from medzsad.results.dividing import divide_components
from medzsad.results.halos import cut_halos
from medzsad.scans.prepared import box_around

if TYPE_CHECKING:
    from medzsad.detectors.volume_rules import VolumeRules

ORDER = "highest candidate score first"
SPECK_MM3 = 10.0  # smaller components are not listed, unless smaller ones are asked for
SCORE_MM3 = 1000.0  # the part of a candidate that its score is the mean of; pixels where mm mean nothing
MOST = 10_000  # candidates; a map of specks has no more meaning, and their numbers must fit 16 bits


def parse_threshold(rule: float | str) -> float | str:
    """Return a threshold rule, checked: a number in [0, 1], ``"pNN"`` or ``"otsu"``.

    Raises:
        BadInput: if it is none of these.
    """
    text = str(rule).strip().lower()
    if text == "otsu":
        return text
    number = re.fullmatch(r"(p?)(\d*\.?\d+|\d+\.)", text)
    if number:
        value = float(number[2])
        if number[1] and value <= 100:
            return f"p{value:g}"
        if not number[1] and value <= 1:
            return value
    raise BadInput(f"threshold {rule!r} is not a number from 0 to 1, a percentile such as p99.5, or otsu")


def resolve_threshold(rule: float | str, values: np.ndarray) -> float:
    """Return the threshold that ``rule`` gives on the anomaly map's foreground ``values``."""
    if isinstance(rule, float):
        return rule
    if not values.size:
        return 1.0
    if rule == "otsu":
        from skimage.filters import threshold_otsu

        return float(threshold_otsu(values)) if values.min() < values.max() else 1.0
    return float(np.percentile(values, float(rule[1:])))


@dataclass(frozen=True)
class Lesion:
    """One lesion candidate.

    Attributes:
        volume_ml: volume in mL (for 2D images without geometry None).
        voxels: size in voxels.
        center_mm: centre of mass in world mm, RAS+.
        center_voxel: voxel index nearest to the centre of mass, in the scan's own axes, from 0. A ring's or a
            crescent's lies outside of it.
        peak_mm, peak_voxel: the same of the highest value of the map inside: the place to look at. Where the
            map reaches it more than once, the place nearest to the centre of mass.
        bounding_box: first and last voxel index along each axis, inclusive.
        maximum, mean: of the anomaly map inside.
        score: in [0, 1], ranks candidates: the mean of the map over the highest :data:`SCORE_MM3` mm^3
            inside; of a smaller candidate, what it lacks counts as 0.
    """

    volume_ml: float | None
    voxels: int
    center_mm: tuple[float, float, float]
    center_voxel: tuple[int, int, int]
    peak_mm: tuple[float, float, float]
    peak_voxel: tuple[int, int, int]
    bounding_box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    maximum: float
    mean: float
    score: float


@dataclass(frozen=True)
class CandidateRules:
    """Which candidates are shown; the defaults show all.

    Attributes:
        min_volume_mm3: smaller ones are hidden; None hides none.
        relative_peak: those whose highest value is below this part of the highest of all are hidden.
        least_peak: those whose highest value is below this are hidden, whatever the others are.
        relative_volume: those smaller than this part of the largest that the rules above leave are hidden.
        max_candidates: those beyond so many are hidden; None hides none.
        one_slice_width: those that lie in one slice alone (along the axis of the widest spacing) and are
            wider than this many times its thickness are hidden; None hides none.
        two_classes: of those of 10 mL and more whose values fall into two clear classes
            (:func:`~.halos.best_split`, at least so clear) the upper one is outlined alone; None cuts none.
        dip, neck: what is shown is divided between its peaks, see :mod:`~.dividing`, but for what a halo was
            cut from; a ``dip`` of 1 divides none.
    """

    min_volume_mm3: float | None = None
    relative_peak: float = 0.0
    least_peak: float = 0.0
    relative_volume: float = 0.0
    max_candidates: int | None = None
    one_slice_width: float | None = None
    two_classes: float | None = None
    dip: float = 1.0
    neck: float = 0.0

    @property
    def speck_mm3(self) -> float:
        """Components smaller than this are not even listed among the hidden ones."""
        return SPECK_MM3 if self.min_volume_mm3 is None else min(SPECK_MM3, self.min_volume_mm3)


@dataclass(frozen=True)
class CandidateChoice:
    """What a caller asks for about candidates, checked.

    Attributes:
        min_volume: in mL; smaller ones are hidden. None for the rules' own.
        max_candidates: at most so many are shown; None for all.
        all_candidates: hide none.

    Raises:
        BadInput: on a value that is impossible.
    """

    min_volume: float | None = None
    max_candidates: int | None = None
    all_candidates: bool = False

    def __post_init__(self) -> None:
        if self.min_volume is not None and not 0 <= 1000 * self.min_volume < np.inf:
            raise BadInput(f"the minimum volume must be a number of mL, 0 or more, not {self.min_volume}")
        if self.max_candidates is not None and self.max_candidates < 1:
            raise BadInput(f"the number of candidates must be at least 1, not {self.max_candidates}")
        if self.all_candidates and (self.min_volume is not None or self.max_candidates is not None):
            raise BadInput("all candidates are asked for, and a limit to them; leave out one of the two")

    def rules(self, rules: VolumeRules, *, has_geometry: bool, own_threshold: bool = True) -> CandidateRules:
        """Return the rules for a scan, from those that a detector has for volumes.

        Args:
            rules: of the detector.
            has_geometry: whether mm mean something.
            own_threshold: whether the mask is cut at the detector's threshold; who gives another one decides
                what is too faint and where borders lie: there is no least peak nor relative volume, no halo
                is cut, and nothing is divided.

        Raises:
            BadInput: a minimum volume, where the voxel size is not known.
        """
        if self.all_candidates:
            return CandidateRules()
        least = rules.min_volume_mm3
        if self.min_volume is not None:
            if not has_geometry:
                raise BadInput(
                    "the voxel size is not known, so nothing has a volume; leave out the minimum volume"
                )
            least = 1000 * self.min_volume
        width = rules.one_slice_width if has_geometry else None
        rules = rules if own_threshold else rules.for_any_values()
        return CandidateRules(
            min_volume_mm3=least,
            relative_peak=rules.relative_peak,
            least_peak=rules.least_peak,
            # Who says which volume is too small, means it.
            relative_volume=rules.relative_volume if self.min_volume is None else 0.0,
            max_candidates=self.max_candidates,
            one_slice_width=width,
            two_classes=rules.two_classes if own_threshold else None,
            dip=rules.dip,
            neck=rules.neck,
        )


class LesionCandidates(NamedTuple):
    """The candidates of a mask, and which voxel belongs to which.

    Attributes:
        lesions: those that are shown, highest score first.
        labels: uint16 (X, Y, Z): the number of a voxel's candidate, from 1, in the order of ``lesions``; the
            number after the last for specks, which belong to none; 0 elsewhere, also in what is hidden.
        hidden: the candidates that the rules hide, in the same order.
    """

    lesions: list[Lesion]
    labels: np.ndarray
    hidden: list[Lesion]


def find_lesions(
    anomaly_map: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    *,
    rules: CandidateRules | None = None,
    has_geometry: bool = True,
) -> LesionCandidates:
    """Find the 26-connected components of ``mask`` that are no specks, divided as the rules say.

    Args:
        anomaly_map: float (X, Y, Z), in [0, 1].
        mask: bool (X, Y, Z).
        affine: float (4, 4), voxel to world mm, RAS+.
        rules: which candidates are shown; None shows all but those beyond the :data:`MOST` first. Where they
            ask for a minimum volume, specks are hidden, too.
        has_geometry: False where mm mean nothing: volumes are None, and 10 "mm^3" are 10 pixels.
    """
    from scipy import ndimage

    rules = rules or CandidateRules()
    if not mask.any():
        return LesionCandidates([], np.zeros(mask.shape, np.uint16), [])
    edges = box_around(mask)  # most of a volume holds none
    part = tuple(slice(*edge) for edge in edges)
    start = np.array([first for first, _ in edges])
    components, count = ndimage.label(mask[part], structure=np.ones((3, 3, 3)))
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    values = anomaly_map[part]
    cut = set() if rules.two_classes is None else cut_halos(components, values, voxel_mm3, rules.two_classes)

    def described(numbers: Iterable[int]) -> list[tuple[Lesion, int]]:
        """Return those of these components that are no specks, highest score first."""
        boxes = ndimage.find_objects(components)
        found = []
        for number in numbers:
            box = boxes[number - 1]
            inside = components[box] == number
            if np.count_nonzero(inside) * voxel_mm3 >= rules.speck_mm3:
                corner = start + [edge.start for edge in box]
                lesion = _lesion_of(values[box], inside, corner, affine, voxel_mm3, has_geometry=has_geometry)
                found.append((lesion, number))
        return sorted(found, key=lambda pair: (pair[0].score, pair[0].mean * pair[0].voxels), reverse=True)

    found = described(range(1, count + 1))
    passing = _passing(found, affine, voxel_mm3, rules)
    hidden = [pair for pair in found if pair[1] not in passing]
    shown = [pair for pair in found if pair[1] in passing]
    if rules.dip < 1:
        # Whole ones were judged: what is shown of the map does not depend on where it is divided.
        parts = divide_components(
            components,
            [number for _, number in shown if number not in cut],
            values,
            affine,
            dip=rules.dip,
            neck=rules.neck,
            least_peak=rules.least_peak,
            least_mm3=max(rules.speck_mm3, rules.min_volume_mm3 or 0.0),
        )
        shown = described([*parts, *(number for _, number in shown if number in cut)])
        count = int(components.max())
    if rules.max_candidates is not None:
        hidden = sorted(shown[rules.max_candidates :] + hidden, key=lambda pair: pair[0].score, reverse=True)
        shown = shown[: rules.max_candidates]
    numbers = np.full(count + 1, len(shown[:MOST]) + 1 if rules.min_volume_mm3 is None else 0, np.uint16)
    numbers[[0, *(component for _, component in hidden)]] = 0
    for number, (_, component) in enumerate(shown[:MOST], start=1):
        numbers[component] = number
    labels = np.zeros(mask.shape, np.uint16)
    labels[part] = numbers[components]
    return LesionCandidates(
        [lesion for lesion, _ in shown[:MOST]], labels, [lesion for lesion, _ in hidden[:MOST]]
    )


def _lesion_of(
    values: np.ndarray,
    inside: np.ndarray,
    corner: np.ndarray,
    affine: np.ndarray,
    voxel_mm3: float,
    *,
    has_geometry: bool,
) -> Lesion:
    """Return what is said of one component.

    Args:
        values: of the map, (X, Y, Z), in the component's box.
        inside: bool (X, Y, Z), the component.
        corner: first voxel of the box.
        affine, has_geometry: see :func:`find_lesions`.
        voxel_mm3: volume of a voxel.
    """
    own = values[inside].astype(np.float64)
    places = np.argwhere(inside) + corner
    center = places.mean(axis=0)
    highest = places[own == own.max()]
    peak = highest[np.square((highest - center) @ affine[:3, :3].T).sum(axis=1).argmin()]
    first, second, third = zip(corner.tolist(), (corner + inside.shape - 1).tolist(), strict=True)
    return Lesion(
        volume_ml=len(own) * voxel_mm3 / 1000 if has_geometry else None,
        voxels=len(own),
        center_mm=_to_mm(affine, center),
        center_voxel=tuple(round(v) for v in center.tolist()),
        peak_mm=_to_mm(affine, peak),
        peak_voxel=tuple(peak.tolist()),
        bounding_box=(first, second, third),
        maximum=float(own.max()),
        mean=float(own.mean()),
        score=score_of(own, voxel_mm3),
    )


def _passing(
    found: list[tuple[Lesion, int]], affine: np.ndarray, voxel_mm3: float, rules: CandidateRules
) -> set[int]:
    """Return the numbers of the components that no rule hides."""
    least = rules.min_volume_mm3 or 0.0
    likely = [
        (lesion, number)
        for lesion, number in found
        if lesion.voxels * voxel_mm3 >= least and not _is_flat(lesion, affine, rules.one_slice_width)
    ]
    highest = max((lesion.maximum for lesion, _ in likely), default=0.0)
    faint = max(rules.relative_peak * highest, rules.least_peak)
    bright = [(lesion, number) for lesion, number in likely if lesion.maximum >= faint]
    small = rules.relative_volume * max((lesion.voxels for lesion, _ in bright), default=0)
    return {number for lesion, number in bright if lesion.voxels >= small}


def _is_flat(lesion: Lesion, affine: np.ndarray, one_slice_width: float | None) -> bool:
    """Whether a candidate lies in one slice and is wider than so many times its thickness."""
    if one_slice_width is None:
        return False
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # Of axes alike the one along the patient, so that the order of storage does not matter.
    upright = np.abs(affine[2, :3]) / spacing
    axis = int(np.where(spacing >= 0.999 * spacing.max(), upright, -1).argmax())
    first, last = lesion.bounding_box[axis]
    width = float(lesion.voxels * np.delete(spacing, axis).prod()) ** 0.5
    return first == last and width > one_slice_width * float(spacing[axis])


def score_of(values: np.ndarray, voxel_mm3: float) -> float:
    """Return the mean of the highest values (N,) over :data:`SCORE_MM3`; what they lack counts as 0."""
    wanted = max(1, round(SCORE_MM3 / voxel_mm3))
    highest = np.partition(values, -wanted)[-wanted:] if values.size > wanted else values
    return float(highest.sum()) / wanted


def _to_mm(affine: np.ndarray, voxel: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (affine[:3, :3] @ voxel + affine[:3, 3]).tolist()
    return x, y, z
