"""One volume of a DICOM series that may hold several: times, echoes, b-values, stacks, acquisitions.

A volume is made of images that belong together, never of what happens to lie at the right places: where one
time point lacks a slice, that of another does not fill the gap. What tells volumes apart is an attribute
(:data:`~medzsad.scans.dicom.frames.VOLUME_KEYS`), several of them together, or the order of acquisition.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.dicom.frames import VOLUME_KEYS, Frame
from medzsad.scans.dicom.screening import natural_order

# Two images lie at the same place if they are this near along the normal, in mm and in pixels.
SAME_PLACE_MM = 0.05
SAME_PLACE_PIXELS = 0.2
# These differ from volume to volume alone, so that images which differ in them are never of one volume,
# whether or not their places repeat.
ALWAYS_APART = (
    "StackID", "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime",
    "EffectiveEchoTime", "InversionTime", "FlipAngle", "DiffusionBValue", "EnergyWindowVector", "KVP",
    "FrameOfReferenceUID",
)  # fmt: skip
TIMES = ("TriggerTime", "AcquisitionTime", "ContentTime")
NEVER_ALONE = (*TIMES, "FrameReferenceTime", "NominalCardiacTriggerDelayTime", "DiffusionGradientOrientation")

Volume = list[Frame]


def one_volume(
    frames: Volume, volume: int | None, pixels: Callable[[Frame], np.ndarray], source: Path
) -> tuple[Volume, list[str], dict[str, Any]]:
    """Return the images of one volume, one for each place, sorted along the normal.

    Identical images at a place are duplicates. Of several volumes, one that is far larger than the others
    (such as a series with a few rescanned slices) is read; otherwise ``volume`` must choose.

    Args:
        frames: placed images of one kind.
        volume: which volume, counted from 0.
        pixels: decodes an image; only called for images at the same place.
        source: what to name in an error.

    Returns:
        The images, notes, and what was chosen: ``index``, ``count`` and ``differ_in`` of the volumes; empty
        for a series of one.

    Raises:
        BadInput: several volumes and no choice, a choice that does not exist, or images at the same places
            that nothing tells apart.
    """
    frames = sorted(frames, key=lambda frame: (frame.number or 0, natural_order(frame)))
    places = _places(frames)
    digest = _Digests(pixels)
    volumes, keys, dropped = _volumes(frames, places, digest, source)
    kept: list[Volume] = []
    for one in sorted(volumes, key=len, reverse=True):  # copies of a volume have the same pixels everywhere
        if any(_is_copy(one, other, places, digest) for other in kept):
            dropped += len(one)
        else:
            kept.append(one)
    volumes = [one for one in volumes if any(one is other for other in kept)]
    notes = []
    if dropped:
        notes.append(f"{_images(dropped)} left out as exact duplicates of others at the same position.")
    last = len(volumes) - 1
    if volume is not None and not 0 <= volume <= last:
        have = "one volume" if not last else f"volumes 0 to {last}"
        raise BadInput(f"{source} holds {have}: `volume` {volume} does not exist; choose another.")
    if not last:
        return volumes[0], notes, {}
    differ_in = " and ".join(keys)
    index: int
    if volume is None:
        main = _main_volume(volumes, places)
        if main is None:
            sizes = ", ".join(str(len(one)) for one in volumes[:8]) + (", ..." if last > 7 else "")
            raise BadInput(
                f"{source} holds {last + 1} volumes (of {sizes} images) that differ in {differ_in}; choose "
                f"one with `volume` 0 to `volume` {last}."
            )
        index = main
        others = sum(map(len, volumes)) - len(volumes[index])
        notes.append(
            f"{_images(others)} left out, of places that were scanned more than once: they differ from the "
            f"others in {differ_in}, and their pixels differ. Volume {index} of 0 to {last}, by far the "
            "largest, was read (`volume` chooses)."
        )
    else:
        index = volume
        notes.append(f"Volume {volume} of 0 to {last} was read (they differ in {differ_in}).")
        most = max(map(len, volumes))
        if len(volumes[index]) < most:
            notes.append(f"It has {len(volumes[index])} images, other volumes up to {most}.")
    return volumes[index], notes, {"index": index, "count": last + 1, "differ_in": keys}


class _Digests:
    """Hashes of images, each decoded once."""

    def __init__(self, pixels: Callable[[Frame], np.ndarray]) -> None:
        self._pixels = pixels
        self._known: dict[int, bytes] = {}

    def __call__(self, frame: Frame) -> bytes:
        if id(frame) not in self._known:
            content = np.ascontiguousarray(self._pixels(frame)).tobytes()
            self._known[id(frame)] = hashlib.blake2b(content).digest()
        return self._known[id(frame)]


def _places(frames: Volume) -> dict[int, int]:
    """Return the place of each image (by ``id``), numbered along the normal."""
    normal = frames[0].normal
    near = min(SAME_PLACE_MM, SAME_PLACE_PIXELS * min(frames[0].spacing or (1.0,)))
    places: dict[int, int] = {}
    start, number = -np.inf, -1
    for depth, frame in sorted(((float(f.position @ normal), f) for f in frames), key=lambda pair: pair[0]):
        if depth - start > near:
            start, number = depth, number + 1
        places[id(frame)] = number
    return places


def _volumes(
    frames: Volume, places: dict[int, int], digest: Callable[[Frame], bytes], source: Path
) -> tuple[list[Volume], list[str], int]:
    """Return the volumes in order, what tells them apart, and how many duplicates were dropped."""
    labels, keys = _labels_by_keys(frames, places)
    dropped = 0
    volumes: list[Volume] = []
    for members in _grouped(frames, labels):
        single: list[Frame] = []
        for _, here in _grouped_by_place(members, places):
            different = {digest(frame): frame for frame in reversed(here)} if len(here) > 1 else {0: here[0]}
            dropped += len(here) - len(different)
            single += different.values()
        parts, key = _by_order(single, places, source)
        if key is None:
            parts, key = _by_interleaving(single)
        volumes += parts
        if key is not None and key not in keys:
            keys.append(key)
    return [sorted(one, key=lambda frame: places[id(frame)]) for one in volumes], keys, dropped


def _labels_by_keys(frames: Volume, places: dict[int, int]) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Values that tell images at the same place apart, of as few attributes as are needed."""
    labels: list[tuple[Any, ...]] = [() for _ in frames]
    keys: list[str] = []
    counts = [len(here) for _, here in _grouped_by_place(frames, places)]
    is_complete = min(counts) == max(counts)
    for key in VOLUME_KEYS:
        values: dict[Any, set[Any]] = defaultdict(set)
        for frame, label in zip(frames, labels, strict=True):
            values[places[id(frame)], label].add(frame.keys[key])
        if max(map(len, values.values())) < 2:
            continue
        finer = [(*label, frame.keys[key]) for frame, label in zip(frames, labels, strict=True)]
        count = len(set(finer))
        # A time stamp differs from slice to slice too: then it orders, but does not group.
        allowed = max(counts) if is_complete else 4 * len(frames) / len(counts)
        if key in ALWAYS_APART and not is_complete:
            allowed = max(allowed, len(frames) / 3)
        if count <= allowed:
            labels = finer
            keys.append(key)
    return labels, keys


def _by_order(frames: Volume, places: dict[int, int], source: Path) -> tuple[list[Volume], str | None]:
    """Volumes of images that no attribute groups, by the order in which they were taken.

    Raises:
        BadInput: the order does not say which image belongs to which volume.
    """
    at_places = [here for _, here in _grouped_by_place(frames, places)]
    most = max(map(len, at_places))
    if most == 1:
        return [frames], None
    is_complete = min(map(len, at_places)) == most
    names = {id(frame): index for index, frame in enumerate(sorted(frames, key=natural_order))}
    orders: dict[str, dict[int, Any]] = {key: {id(f): f.keys[key] for f in frames} for key in TIMES}
    orders |= {"InstanceNumber": {id(f): f.number for f in frames}, "file names": names}
    for key, order in orders.items():
        if None in order.values() or any(len({order[id(f)] for f in here}) < len(here) for here in at_places):
            continue
        ordered = sorted(frames, key=lambda frame: (order[id(frame)], frame.number or 0))
        runs = _runs(ordered, places, len(at_places))
        if runs is not None and len(runs) == most:
            return runs, key
        # All images of a place may have been taken, or counted, before those of the next.
        blocks = {tuple({places[id(f)] for f in ordered[i : i + most]}) for i in range(0, len(ordered), most)}
        if is_complete and (key in TIMES or all(len(block) == 1 for block in blocks)):
            ranked = [sorted(here, key=lambda frame: order[id(frame)]) for here in at_places]
            return [[here[rank] for here in ranked] for rank in range(most)], key
    raise BadInput(
        f"{source} holds up to {most} images at the same position, and neither attributes nor times, numbers "
        "or file names say which belong together; put the images of one volume into a folder of their own."
    )


def _runs(ordered: Volume, places: dict[int, int], count: int) -> list[Volume] | None:
    """Images in the order they were taken, cut where a place comes again; None if that is not certain.

    Where a volume lacks its first or last slice, it is not certain where it begins: it is cut from both ends,
    and that counts in which all volumes were scanned in the same direction.
    """

    def cut(sequence: Iterable[Frame]) -> list[Volume]:
        runs: list[Volume] = [[]]
        seen: set[int] = set()
        for frame in sequence:
            if places[id(frame)] in seen:
                runs.append([])
                seen = set()
            seen.add(places[id(frame)])
            runs[-1].append(frame)
        return runs

    def is_consistent(runs: list[Volume]) -> bool:
        sequences = [[places[id(frame)] for frame in run] for run in runs]
        if all(len(sequence) == count for sequence in sequences):
            return True
        whole = next((sequence for sequence in sequences if len(sequence) == count), None)
        if whole is not None:
            rank = {place: index for index, place in enumerate(whole)}
            steps = [np.diff([rank[place] for place in sequence]) for sequence in sequences]
            return all((step > 0).all() for step in steps)
        steps = [np.diff(sequence) for sequence in sequences]
        return all((step > 0).all() for step in steps) or all((step < 0).all() for step in steps)

    found = [cut(ordered), [run[::-1] for run in cut(reversed(ordered))][::-1]]
    found = [runs for runs in found if is_consistent(runs)]
    if len(found) == 2 and [list(map(id, run)) for run in found[0]] != [
        list(map(id, run)) for run in found[1]
    ]:
        return None
    return found[0] if found else None


def _by_interleaving(frames: Volume) -> tuple[list[Volume], str | None]:
    """Volumes whose slices lie between each other, so that no place repeats."""
    normal = frames[0].normal
    depths = np.array([float(frame.position @ normal) for frame in frames])
    if len(frames) < 4:
        return [frames], None
    for key in VOLUME_KEYS:
        if key in NEVER_ALONE:
            continue
        parts = _grouped(frames, [(frame.keys[key],) for frame in frames])
        if 1 < len(parts) <= len(frames) / 3 and min(map(len, parts)) >= 2:
            stacks = [np.array([float(frame.position @ normal) for frame in part]) for part in parts]
            # Positions of different frames of reference have nothing to do with each other.
            apart = key == "FrameOfReferenceUID" and all(frame.keys[key] for frame in frames)
            if apart or not _is_one_stack(stacks, frames[0].thickness, key in ALWAYS_APART):
                return parts, key
    numbers = [frame.number for frame in frames if frame.number is not None]
    if len(set(numbers)) < len(frames) or _is_even(depths):
        return [frames], None
    # Passes over the same region, one after the other: the numbers go on, and the places start again.
    order = np.argsort(numbers)
    steps = np.diff(depths[order])
    back = np.flatnonzero(steps * np.sign(np.median(steps)) < 0) + 1
    passes = [part for part in np.split(order, back)]
    if 1 < len(passes) <= len(frames) / 3 and all(len(p) >= 3 and _is_even(depths[p]) for p in passes):
        return [[frames[index] for index in part] for part in passes], "InstanceNumber"
    return [frames], None


def _is_one_stack(stacks: list[np.ndarray], claimed: float | None, apart: bool) -> bool:
    """Whether groups of slices are parts of one stack: blocks side by side, or every second slice each.

    Args:
        stacks: depths of the groups' slices, mm.
        claimed: distance between slices, or their thickness, as the header says.
        apart: the groups are different volumes wherever they overlap.
    """
    step = max(float(np.median(np.diff(np.sort(stack)))) for stack in stacks)
    ordered = sorted(stacks, key=lambda stack: float(stack.min()))
    between = [float(b.min() - a.max()) for a, b in pairwise(ordered)]
    if min(between) > 0:
        return max(between) <= 2.5 * step
    if apart:
        return False
    union = np.sort(np.concatenate(stacks))
    if not _is_even(union):
        return not all(len(stack) >= 3 and _is_even(stack) for stack in stacks)
    return claimed is None or abs(claimed - float(np.median(np.diff(union)))) <= abs(claimed - step)


def _is_even(depths: np.ndarray) -> bool:
    """Whether slices are evenly spaced, but for a few missing ones."""
    gaps = np.diff(np.sort(depths))
    step = float(np.median(gaps))
    if step <= 0:
        return False
    multiples = np.maximum(np.round(gaps / step), 1)
    few = np.count_nonzero(multiples > 1) <= len(gaps) / 3
    return bool(few and (np.abs(gaps / step - multiples) <= 0.15).all())


def _main_volume(volumes: list[Volume], places: dict[int, int]) -> int | None:
    """Return the volume beside which the others are only rescanned slices; None if there is none."""
    sizes = [len(one) for one in volumes]
    largest = int(np.argmax(sizes))
    covered = {places[id(frame)] for one in volumes for frame in one}
    others = {places[id(frame)] for i, one in enumerate(volumes) if i != largest for frame in one}
    rescans = sizes[largest] == len(covered) and len(others) < 0.5 * len(covered)
    second = max(size for i, size in enumerate(sizes) if i != largest)
    return largest if rescans or sizes[largest] > 4 * second else None


def _is_copy(one: Volume, other: Volume, places: dict[int, int], digest: Callable[[Frame], bytes]) -> bool:
    at_place = {places[id(frame)]: frame for frame in other}
    return all(places[id(frame)] in at_place for frame in one) and all(
        digest(frame) == digest(at_place[places[id(frame)]]) for frame in one
    )


def _grouped(frames: Volume, labels: list[tuple[Any, ...]]) -> list[Volume]:
    """Images by label, in the order of the labels' values."""
    groups: dict[tuple[Any, ...], Volume] = defaultdict(list)
    for frame, label in zip(frames, labels, strict=True):
        groups[label].append(frame)

    def rank(label: tuple[Any, ...]) -> list[tuple[bool, str, Any]]:
        return [(value is not None, str(type(value)), value or 0) for value in label]

    return [groups[label] for label in sorted(groups, key=rank)]


def _grouped_by_place(frames: Volume, places: dict[int, int]) -> list[tuple[int, Volume]]:
    groups: dict[int, Volume] = defaultdict(list)
    for frame in frames:
        groups[places[id(frame)]].append(frame)
    return sorted(groups.items())


def _images(count: int) -> str:
    return "1 image was" if count == 1 else f"{count} images were"
