"""The DICOM images at a place, and the choice of one series among them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.dicom.files import (
    SeriesKey,
    UnusableFile,
    dicom_files,
    is_capture,
    is_dicom,
    is_media_directory,
    not_an_image,
    read_header,
    stands_alone,
)
from medzsad.scans.dicom.frames import Frame, frames_of
from medzsad.scans.dicom.screening import one_kind
from medzsad.scans.files import walk


@dataclass
class Collected:
    """What DICOM files hold.

    Attributes:
        frames: the images.
        faulty: images that cannot be used, by series; those of an unknown series under None.
        without_image: how many files are reports, structure sets and the like, by kind.
        unreadable: how many files are empty, or links that lead nowhere, by reason.
    """

    frames: list[Frame] = field(default_factory=list)
    faulty: dict[SeriesKey | None, list[UnusableFile]] = field(default_factory=lambda: defaultdict(list))
    without_image: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """Return what was left out, a line for each kind."""
        faulty = Counter(error.reason for errors in self.faulty.values() for error in errors)
        parts = (
            ("DICOM files without an image were left out", self.without_image),
            ("Files that cannot be read were left out, so slices may be missing", self.unreadable),
            ("DICOM files that cannot be used were left out", faulty),
        )
        return [f"{what}: {_counted(counts)}." for what, counts in parts if counts]

    def check_series(self, key: SeriesKey, count: int) -> None:
        """Raise the first error of a series that has more faulty images than the ``count`` good ones."""
        errors = self.faulty.get(key, [])
        if len(errors) > count:
            raise errors[0]


def collect_frames(path: Path) -> Collected:
    """Return the images of a file, a folder with its subfolders, or the folder that a DICOMDIR lies in.

    Files that hold no image, and those with a header that cannot be used, cost no other.

    Raises:
        BadInput: nothing there is a DICOM image that can be read.
    """
    found = Collected()
    if path.is_file():
        if not is_dicom(path):
            raise BadInput(
                f"{path} is not a scan that can be read; give a NIfTI (.nii, .nii.gz), NRRD, MetaImage, "
                "MGZ, DICOM, PNG, JPEG or TIFF file."
            )
        header = read_header(path)
        if not is_media_directory(header):
            reason = not_an_image(header)
            if reason:
                raise BadInput(f"{path} is {reason}, not an image; give the file or folder of the images.")
            found.frames = frames_of(header, path)
            return found
        path = path.parent
    files, unreadable = dicom_files(path)
    found.unreadable.update(unreadable.values())
    for file in files:
        key = None
        try:
            header = read_header(file)
            key = header.series_key
            reason = None if is_media_directory(header) else not_an_image(header)
            if reason:
                found.without_image[reason] += 1
            elif not is_media_directory(header):
                found.frames += frames_of(header, file)
        except UnusableFile as error:
            found.faulty[key].append(error)
    if not found.frames:
        _raise_why_none(path, found)
    return found


def choose_series(frames: list[Frame], wanted: str | None, path: Path) -> tuple[list[Frame], str, list[str]]:
    """Return one of the series among images: the one asked for, or the one with the most images for a volume,
    and one of radiographs, photographs or captures only if there is no other.

    Args:
        frames: images of any series.
        wanted: SeriesInstanceUID, or a beginning or end that only one has.
        path: what to name in an error.

    Returns:
        Its images, its UID ("" where the files have none), and a note on the other series, without patient
        data.

    Raises:
        BadInput: ``wanted`` names no series or several, or there is no choice but among separate images; the
            message lists them.
    """
    groups = group_series(frames)
    names = dict(zip(groups, _short_names(groups), strict=True))
    labels = {name: _series_label(names[name], group) for name, group in groups.items()}
    # The most images that can make one volume: scouts in many directions do not outnumber a scan.
    # Captures come last: they picture another series, image by image, and would be as many.
    ranked = sorted(
        groups,
        key=lambda name: (
            _is_capture(groups[name]),
            _is_alone(groups[name]),
            -len(one_kind(groups[name])[0]),
            name,
        ),
    )
    if wanted is None:
        chosen = ranked[0]
        same = [n for n in ranked if _is_capture(groups[n]) == _is_capture(groups[chosen])]
        if _is_alone(groups[chosen]) and len(same) > 1:
            raise BadInput(
                f"{path} holds {len(same)} separate images, not a volume ({_listed(map(labels.get, same))}); "
                "choose one with `series`, or give one file."
            )
    else:
        matches = [name for name in ranked if name == wanted] or [
            name for name in ranked if wanted and (name.startswith(wanted) or name.endswith(wanted))
        ]
        if len(matches) != 1:
            which = "no series" if not matches else f"{len(matches)} series"
            listed = _listed(map(labels.get, ranked))
            raise BadInput(f"{path} has {which} that `series` {wanted} names; there are: {listed}.")
        chosen = matches[0]
    key = groups[chosen][0].series
    if key.is_made:
        _check_numbers(groups[chosen], path)
    uid = "" if key.is_made else key.uid
    if len(groups) == 1:
        return groups[chosen], uid, []
    people = len({group[0].series.person for group in groups.values()})
    of = f" of {people} people" if people > 1 else ""
    why = "the largest" if wanted is None else "as chosen"
    others = _listed(labels[name] for name in ranked if name != chosen)
    note = (
        f"There are {len(groups)} series{of}: {labels[chosen]} was read, {why}. Others (`series` chooses): "
        f"{others}."
    )
    return groups[chosen], uid, [note]


def group_series(frames: Iterable[Frame]) -> dict[str, list[Frame]]:
    """Return the images by series, under what ``--series`` calls each.

    That is a name of :func:`series_names`, with "/2" and so on for further sizes and directions of images
    without a UID.
    """
    by_key: dict[SeriesKey, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_key[frame.series].append(frame)
    groups: dict[str, list[Frame]] = defaultdict(list)
    for key, name in series_names(by_key).items():
        if not key.is_made:
            groups[name] = by_key[key]
            continue
        rest, number = by_key[key], 0
        while rest:
            number += 1
            kept = {(frame.path, frame.index, frame.tile) for frame in one_kind(rest)[0]}
            parts: tuple[list[Frame], list[Frame]] = ([], [])
            for frame in rest:
                parts[(frame.path, frame.index, frame.tile) not in kept].append(frame)
            groups[name if number == 1 else f"{name}/{number}"], rest = parts
    return groups


def _check_numbers(frames: list[Frame], path: Path) -> None:
    """Refuse images without a series UID whose numbers begin again at other positions."""
    numbers = [frame.number for frame in frames if frame.number is not None and frame.position is not None]
    places = {tuple(np.round(frame.position, 1)) for frame in frames if frame.position is not None}
    if 1 < len(set(numbers)) < len(numbers) and len(places) == len(numbers):
        raise BadInput(
            f"{path} holds {len(frames)} images without SeriesInstanceUID whose InstanceNumbers repeat at "
            "different positions: they may be of several people; put each series into a folder of its own."
        )


def series_names(keys: Iterable[SeriesKey]) -> dict[SeriesKey, str]:
    """Return what ``--series`` calls each series: its UID, with a part of a hash where several share one."""
    keys = sorted(keys)
    shared = Counter(key.uid for key in keys)
    return {key: key.uid + (f"/{key.part[:6]}" if shared[key.uid] > 1 else "") for key in keys}


def _is_capture(frames: list[Frame]) -> bool:
    return all(is_capture(frame.header) for frame in frames)


def _is_alone(frames: list[Frame]) -> bool:
    """Whether a series is of images that are no slices."""
    return all(stands_alone(frame.header) and not frame.has_place for frame in frames)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in sorted(counts.items()))


def _listed(labels: Iterable[str | None], most: int = 8) -> str:
    texts = [str(label) for label in labels]
    return "; ".join(texts[:most]) + (f"; and {len(texts) - most} more" if len(texts) > most else "")


def _short_names(names: Iterable[str]) -> list[str]:
    """Return the ends of names, as long as it takes to tell them apart."""
    names = list(names)
    length = 8
    while len({name[-length:] for name in names}) < len(names):
        length += 4
    return [name[-length:] for name in names]


def _raise_why_none(path: Path, found: Collected) -> None:
    from medzsad.scans.files import is_volume
    from medzsad.scans.images2d import is_image

    errors = [error for errors in found.faulty.values() for error in errors]
    if errors:
        raise errors[0]
    if found.unreadable:
        raise BadInput(
            f"{path} holds no DICOM image that can be read ({_counted(found.unreadable)}); copy or fetch the "
            "files again."
        )
    if found.without_image:
        raise BadInput(
            f"{path} holds DICOM files but no image ({_counted(found.without_image)}); give the folder of "
            "the images."
        )
    files = [file for _, here, _ in walk(path) for file in here]
    if not files:
        raise BadInput(f"{path} is an empty folder; give a scan file or a folder with a DICOM series.")
    readable = sum(is_volume(file) or is_image(file) for file in files)
    if readable:
        raise BadInput(
            f"{path} holds no DICOM series but {readable} NIfTI or other scan files; give one of them."
        )
    raise BadInput(
        f"{path} holds {len(files)} files, none of them a scan; give a scan or a folder with a DICOM series."
    )


def _series_label(name: str, frames: list[Frame]) -> str:
    modality = str(frames[0].header.get("Modality") or "no modality")
    images = "1 image" if len(frames) == 1 else f"{len(frames)} images"
    return f"...{name} ({modality}, {images})"
