"""Which images of a DICOM series make one volume: scouts, strays, duplicates and further volumes are set
apart."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.dicom_frames import VOLUME_KEYS, Frame

SAME_AXES = 0.9995  # cosine; 1.8 degrees
SAME_PLACE_MM = 0.01


def one_kind(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    """The largest group of images with one size, orientation and pixel spacing; scouts only if all are.

    Returns:
        The images kept, in order, and a note on those left out and why.
    """
    notes = []
    slices = [frame for frame in frames if not frame.is_scout]
    if slices and len(slices) < len(frames):
        count = len(frames) - len(slices)
        notes.append(f"{_images(count)} left out as scout (localizer).")
        frames = slices
    orientations: list[tuple[np.ndarray, np.ndarray]] = []
    kinds = [_kind(frame, orientations) for frame in frames]
    largest, _ = Counter(kinds).most_common(1)[0]
    reasons: Counter[str] = Counter()
    for kind in kinds:
        if kind != largest:
            names = ("another size", "other colours", "another orientation", "another pixel spacing")
            reasons[next(n for n, a, b in zip(names, kind, largest, strict=True) if a != b)] += 1
    for reason, count in reasons.items():
        notes.append(
            f"{_images(count)} left out for {reason} than the other {len(frames) - sum(reasons.values())}."
        )
    return [frame for frame, kind in zip(frames, kinds, strict=True) if kind == largest], notes


def one_volume(
    frames: list[Frame], volume: int | None, pixels: Callable[[Frame], np.ndarray], source: Path
) -> tuple[list[Frame], list[str]]:
    """One image for each position, sorted along the normal.

    Identical images at a position are duplicates. Where at least half of the positions have several that
    differ, the series holds several volumes (echoes, times, b-values) and ``volume`` must choose. A few
    such positions are repeated scans: the first by instance number is kept, and said.

    Args:
        frames: placed images of one kind.
        volume: which volume, counted from 0.
        pixels: decodes an image; only called for images at the same position.
        source: what to name in an error.

    Raises:
        BadInput: several volumes and no choice, or a choice that does not exist.
    """
    places = _by_place(frames)
    notes = []
    repeated = [index for index, place in enumerate(places) if len(place) > 1]
    dropped = 0
    for index in repeated:
        kept = _without_identical(places[index], pixels)
        dropped += len(places[index]) - len(kept)
        places[index] = kept
    if dropped:
        notes.append(f"{_images(dropped)} left out as exact duplicates of others at the same position.")
    many = [place for place in places if len(place) > 1]
    if len(many) >= 0.5 * len(places):
        key, volumes = _volumes(places)
        last = len(volumes) - 1
        if volume is None:
            raise BadInput(
                f"{source} holds {len(volumes)} volumes at the same positions (they differ in {key}); "
                f"choose one with --volume 0 to --volume {last}."
            )
        if not 0 <= volume <= last:
            raise BadInput(f"{source} has volumes 0 to {last}: --volume {volume} does not exist.")
        notes.append(f"Volume {volume} of 0 to {last} was read (they differ in {key}).")
        return volumes[volume], notes
    if volume not in (None, 0):
        raise BadInput(f"{source} holds one volume: --volume {volume} does not exist; leave the option out.")
    if many:
        count = sum(len(place) - 1 for place in many)
        notes.append(
            f"{_images(count)} left out at {len(many)} positions that were scanned more than once: the "
            "first by instance number was kept, although their pixels differ."
        )
    return [place[0] for place in places], notes


def _kind(frame: Frame, orientations: list[tuple[np.ndarray, np.ndarray]]) -> tuple[object, ...]:
    """What images of one volume have in common; ``orientations`` collects those seen so far."""
    orientation = -1
    if frame.axes is not None:
        alike = (
            index
            for index, axes in enumerate(orientations)
            if all(a @ b > SAME_AXES for a, b in zip(axes, frame.axes, strict=True))
        )
        orientation = next(alike, len(orientations))
        if orientation == len(orientations):
            orientations.append(frame.axes)
    spacing = frame.spacing and tuple(round(step, 3) for step in frame.spacing)
    return (frame.rows, frame.columns), frame.samples, (orientation, frame.position is None), spacing


def _by_place(frames: list[Frame]) -> list[list[Frame]]:
    """Images grouped by depth, along the normal; within a group by instance number."""
    normal = frames[0].normal
    ordered = sorted(frames, key=lambda frame: float(frame.position @ normal))
    places: list[list[Frame]] = []
    for frame in ordered:
        if places and (frame.position - places[-1][0].position) @ normal <= SAME_PLACE_MM:
            places[-1].append(frame)
        else:
            places.append([frame])
    return [sorted(place, key=lambda frame: (frame.number, frame.index, str(frame.path))) for place in places]


def _without_identical(place: list[Frame], pixels: Callable[[Frame], np.ndarray]) -> list[Frame]:
    seen: dict[bytes, Frame] = {}
    for frame in place:
        seen.setdefault(hashlib.blake2b(np.ascontiguousarray(pixels(frame)).tobytes()).digest(), frame)
    return list(seen.values())


def _volumes(places: list[list[Frame]]) -> tuple[str, list[list[Frame]]]:
    """The volumes that images at the same positions belong to, and the attribute that tells them apart."""
    for key in VOLUME_KEYS:
        values = [[frame.keys[key] for frame in place] for place in places]
        if all(None not in value and len(set(value)) == len(value) for value in values):
            by_value: dict[object, list[Frame]] = defaultdict(list)
            for place in places:
                for frame in place:
                    by_value[frame.keys[key]].append(frame)
            # A time stamp differs from slice to slice too: then it orders, but does not group.
            if len(by_value) == max(map(len, places)):
                return key, [by_value[value] for value in sorted(by_value, key=lambda v: (str(type(v)), v))]
    count = max(map(len, places))
    return "InstanceNumber", [
        [place[index] for place in places if index < len(place)] for index in range(count)
    ]


def _images(count: int) -> str:
    return "1 image was" if count == 1 else f"{count} images were"
