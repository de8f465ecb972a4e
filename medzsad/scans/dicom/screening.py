"""Which images of a DICOM series are of one kind, as those of a volume are: scouts and strays are set apart.
Several volumes of one kind are told apart in :mod:`medzsad.scans.dicom.volumes`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

import numpy as np

from medzsad.errors import BadInput, certain
from medzsad.scans.dicom.files import is_capture
from medzsad.scans.dicom.frames import Frame

T = TypeVar("T")

SAME_AXES = 0.9995  # cosine; 1.8 degrees
# Relative: half a pixel at the edge of an image of 512; and what rounding to the digits printed may add.
SAME_SPACING = 1e-3
PRINTED_SPACING = 5e-3
# What tells images of one series apart, in the order of _kind.
REASONS = (
    "another size than", "other colours than", "no position, unlike", "another orientation than",
    "another pixel spacing than",
)  # fmt: skip


def one_kind(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    """Return the largest group of images with one size, orientation and pixel spacing; scouts and
    captures only if all are.

    Returns:
        The images kept, in order, and a note on those left out and why.
    """
    frames, notes = _slices(frames)
    orientations: list[tuple[np.ndarray, np.ndarray]] = []
    spacings: list[tuple[float, float]] = []
    kinds = [_kind(frame, orientations, spacings) for frame in frames]
    largest, _ = Counter(kinds).most_common(1)[0]
    reasons: Counter[str] = Counter()
    for kind in kinds:
        if kind != largest:
            reason = next(n for n, a, b in zip(REASONS, kind, largest, strict=True) if a != b)
            reasons[reason.replace("no p", "a p") if largest[2] else reason] += 1
    for reason, count in reasons.items():
        notes.append(
            f"{_images(count)} left out for {reason} the other {len(frames) - sum(reasons.values())}."
        )
    kept = [frame for frame, kind in zip(frames, kinds, strict=True) if kind == largest]
    if len({frame.spacing for frame in kept}) > 1:  # the one with the most digits is the most exact
        finest = max((certain(frame.spacing) for frame in kept), key=lambda one: sum(map(_decimals, one)))
        kept = [replace(frame, spacing=finest) for frame in kept]
    return kept, notes


def natural_order(frame: Frame) -> tuple[object, ...]:
    """Return a key that sorts images by file name as people do, 2 before 10."""
    parts = re.split(r"(\d+)", str(frame.path))
    return tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts), frame.index


def check_directions(frames: list[Frame], kept: list[Frame], source: object) -> None:
    """Refuse a series whose images lie in so many directions that those kept are no part worth reading alone.

    Args:
        frames: all images of the series.
        kept: those that :func:`one_kind` chose.
        source: what to name in an error.

    Raises:
        BadInput: images turned around an axis, as in radial MRCP, or scouts in several directions.
    """
    frames, _ = _slices(frames)
    orientations: list[tuple[np.ndarray, np.ndarray]] = []
    for frame in frames:
        _kind(frame, orientations, [])
    count = len(orientations)
    few = len(kept) == 1 if count < 4 else len(kept) < 0.5 * len(frames)
    if count > 1 and few:
        kind = "a radial series" if count > 3 else "scouts"
        raise BadInput(
            f"{source} holds {len(frames)} images in {count} directions ({kind}), which make no volume; give "
            "one file at a time."
        )


def _slices(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    """Return the images without scouts and captures, unless there is nothing else, and a note on these."""
    notes = []
    for name, is_other in (
        ("scout (localizer)", lambda frame: frame.is_scout),
        ("secondary capture", lambda frame: is_capture(frame.header)),
    ):
        kept = [frame for frame in frames if not is_other(frame)]
        if kept and len(kept) < len(frames):
            notes.append(f"{_images(len(frames) - len(kept))} left out as {name}.")
            frames = kept
    return frames, notes


def _kind(
    frame: Frame,
    orientations: list[tuple[np.ndarray, np.ndarray]],
    spacings: list[tuple[float, float]],
) -> tuple[object, ...]:
    """Return what images of one volume have in common; the lists collect what was seen so far."""
    orientation = -1
    if frame.axes is not None:
        orientation = _number_in(orientations, frame.axes, _same_axes)
    spacing = -1 if frame.spacing is None else _number_in(spacings, frame.spacing, _same_spacing)
    return (frame.rows, frame.columns), frame.samples, frame.position is None, orientation, spacing


def _number_in(seen: list[T], value: T, alike: Callable[[T, T], bool]) -> int:
    """Return the number of the first value seen that this one is like; it is added where there is none."""
    number = next((index for index, other in enumerate(seen) if alike(other, value)), len(seen))
    if number == len(seen):
        seen.append(value)
    return number


def _same_axes(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    return all(a @ b > SAME_AXES for a, b in zip(one, other, strict=True))


def _same_spacing(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two spacings are one that was printed with more or fewer digits."""
    for a, b in zip(one, other, strict=True):
        printed = 0.51 * 10.0 ** -min(_decimals(a), _decimals(b))
        if abs(a - b) > max(SAME_SPACING * a, min(printed, PRINTED_SPACING * a)):
            return False
    return True


def _decimals(value: float) -> int:
    return max(0, -int(Decimal(repr(value)).normalize().as_tuple().exponent))


def _images(count: int) -> str:
    return "1 image was" if count == 1 else f"{count} images were"
