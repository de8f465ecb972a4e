"""Which scans lie in a folder: files that are one each, and what DICOM files make up by person and study."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medzsad.errors import BadInput, certain
from medzsad.scans.dicom.collect import series_names
from medzsad.scans.dicom.files import (
    SeriesKey,
    UnusableFile,
    is_capture,
    is_dicom,
    is_media_directory,
    may_be_cut_short,
    may_be_dicom,
    not_an_image,
    read_header,
    read_outline,
    stands_alone,
)
from medzsad.scans.dicom.frames import frames_of
from medzsad.scans.files import existing, is_listed_volume, is_volume, walk
from medzsad.scans.images2d import is_image
from medzsad.scans.own_results import is_result, refuse_result

if TYPE_CHECKING:
    from pydicom import Dataset

FORMATS = "NIfTI (.nii, .nii.gz), NRRD, MetaImage, MGZ, DICOM, PNG, JPEG or TIFF"


@dataclass(frozen=True, slots=True)
class ScanPlace:
    """Where a scan lies: what :func:`medzsad.read_scan` takes.

    Attributes:
        path: a file or folder.
        series: which series of the folder, where it holds the scans of several studies.
    """

    path: Path
    series: str | None = None

    @property
    def named_after(self) -> Path:
        """A path to name results after: the scan's own, with the end of the series where that is needed."""
        tail = re.sub(r"[^0-9A-Za-z]+", "-", (self.series or "")[-8:]).strip("-")
        return self.path.with_name(f"{self.path.name}_{tail}") if tail and self.path.name else self.path


def find_scans(path: str | Path) -> list[Path]:
    """Return the files and folders with the scans at a place; see :func:`locate_scans`, which also tells the
    scans of several people in one folder apart.

    Raises:
        BadInput: there is no such place, no scan in it, or it is a result of medzsad (a scan that was saved
            beside its results is a scan).
    """
    return list(dict.fromkeys(place.path for place in locate_scans(path)[0]))


def locate_scans(path: str | Path) -> tuple[list[ScanPlace], list[str]]:
    """Return the scans at a place, and notes on files that are none.

    A file is itself. In a folder and its subfolders, every NIfTI file, 2D image and DICOM image that is no
    slice (radiograph, photograph, ultrasound) is a scan; DICOM slices are a scan for each folder and study
    (:func:`dicom_scans`). Links that lead nowhere, empty files and files that may
    not be opened are scans that fail when they are read, unless DICOM slices lie beside them, whose reader
    says so. Hidden files and folders are skipped, and medzsad's own results. A DICOMDIR stands for its
    folder.

    Raises:
        BadInput: there is no such place, no scan in it, or it is a result of medzsad (a scan that was saved
            beside its results is a scan).
    """
    path = existing(path)
    if not path.is_dir():
        if path.is_file():
            refuse_result(path)
        is_index = path.is_file() and is_dicom(path) and is_media_directory(read_outline(path))
        return locate_scans(path.parent) if is_index else ([ScanPlace(path)], [])
    found: list[ScanPlace] = []
    dicom: list[Path] = []
    faults: list[Path] = []
    results: set[Path] = set()  # folders of pictures
    for folder, files, unreadable in walk(path):
        if folder != path and (is_result(folder) or not results.isdisjoint(folder.parents)):
            results.add(folder)
            continue
        files = [file for file in files if not is_result(file)]
        named = {file for file in files if is_listed_volume(file) or is_image(file)}
        named |= {file for file in unreadable if is_volume(file) or is_image(file)}
        found += map(ScanPlace, named)
        dicom += [file for file in files if file not in named and is_dicom(file)]
        faults += [file for file in unreadable if file not in named and may_be_dicom(file)]
    of_dicom = dicom_scans(dicom)
    found += [ScanPlace(*place) for place in of_dicom.places]
    holds_dicom = {parent for file in dicom for parent in file.parents}
    alone = [file for file in faults if file.parent not in {good.parent for good in dicom}]
    counts = Counter(file.parent for file in alone)
    for file in alone:  # several are one series, most likely, and fail once as their folder does
        several = counts[file.parent] > 1 and file.parent not in holds_dicom
        found.append(ScanPlace(file.parent if several else file))
    if not found:
        what = f" ({' '.join(of_dicom.notes)})" if of_dicom.notes else ""
        raise BadInput(f"{path} holds no scans{what}; give a file or a folder with {FORMATS} files.")
    return sorted(set(found), key=_in_order), of_dicom.notes


def _in_order(place: ScanPlace) -> tuple[object, ...]:
    """Return a key that sorts the files of a folder before its subfolders."""
    is_file = not place.path.is_dir()
    *folders, name = place.path.parts
    return [*((1, folder) for folder in folders), (0 if is_file else 1, name)], place.series or ""


@dataclass
class DicomScans:
    """The scans among DICOM files.

    Attributes:
        places: for each scan its file or folder, and what ``--series`` calls it where the folder alone does
            not say which one is meant.
        notes: what is no scan, in a line for each kind.
    """

    places: list[tuple[Path, str | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _File:
    path: Path
    key: SeriesKey
    kind: tuple[object, ...]  # size and direction; empty for scouts
    is_capture: bool


def dicom_scans(files: Iterable[Path]) -> DicomScans:
    """Return the scans that DICOM files are, decided by all of them, in any order of their names.

    - Radiographs, photographs, ultrasound stills and loops are scans of their own, each file one.
    - Slices are told apart by person and study. Those of one study in one folder are one scan, of whose
      series the largest is read; a series spread over folders is a scan of the folder that holds them all.
    - Multi-frame files are scans of their own, but for those that share a volume.
    - Reports and the like are no scans, nor are captures beside other images of their study.
    - A file whose header cannot be read is a scan that fails, unless a folder of slices holds it, whose
      reader says so.
    """
    found = DicomScans()
    slices: dict[SeriesKey, list[_File]] = defaultdict(list)
    many_frames: dict[SeriesKey, list[_File]] = defaultdict(list)
    images: list[_File] = []  # all of them
    alone: list[_File] = []
    damaged: list[Path] = []
    others: list[tuple[Path, str]] = []
    for path in files:
        try:
            outline = read_outline(path)
        except UnusableFile:
            damaged.append(path)
            continue
        reason = not_an_image(outline)
        if is_media_directory(outline):
            continue
        if reason and may_be_cut_short(outline):
            damaged.append(path)
            continue
        if reason:
            others.append((path, reason))
            continue
        file = _File(path, outline.series_key, _kind(outline), is_capture(outline))
        images.append(file)
        if _frame_count(outline) > 1:
            many_frames[file.key].append(file)
        elif stands_alone(outline):
            alone.append(file)
        else:
            slices[file.key].append(file)
    for key, group in many_frames.items():
        if key in slices or (len(group) > 1 and _share_a_volume(group)):
            slices[key] += group
        else:
            alone += group
    others += [(path, "a secondary capture beside other images") for path in _drop_captures(alone, slices)]
    places, homes = _volumes(slices, images)
    places += [(file.path, None) for file in alone]
    places += [(path, None) for path in damaged if not homes.intersection(path.parents)]
    found.places = sorted(places, key=lambda place: (place[0], place[1] or ""))
    # Whoever reads a folder of slices says what else it holds.
    counts = Counter(reason for path, reason in others if not homes.intersection(path.parents))
    listed = ", ".join(f"{count} x {reason}" for reason, count in sorted(counts.items()))
    if listed:
        found.notes.append(f"DICOM files that are no scans were left out: {listed}.")
    return found


def _volumes(
    slices: dict[SeriesKey, list[_File]], images: list[_File]
) -> tuple[list[tuple[Path, str | None]], set[Path]]:
    """Places of volumes, and the folders that are read for them."""
    folders = {key: {file.path.parent for file in group} for key, group in slices.items()}
    homes = {key: Path(os.path.commonpath(parents)) for key, parents in folders.items()}
    scans: dict[tuple[Path, str], list[SeriesKey]] = defaultdict(list)
    for key, home in homes.items():
        scans[home, key.study].append(key)
    places: list[tuple[Path, str | None]] = []
    for (home, _), keys in scans.items():
        # A folder is read with all that lies below it.
        below = [key for key, parents in folders.items() if any(p.is_relative_to(home) for p in parents)]
        chosen = min(keys, key=lambda key: (*_size(slices[key]), key))
        name = None
        if len(below) > len(keys):
            name = series_names({file.key for file in images if file.path.is_relative_to(home)})[chosen]
        places.append((home, name))
    return places, set(homes.values())


def _size(group: list[_File]) -> tuple[bool, int]:
    """Return what sorts series as ``choose_series`` does.

    Captures last, the most images of one kind first.
    """
    kinds = Counter(file.kind for file in group if file.kind) or Counter([()])
    return all(file.is_capture for file in group), -kinds.most_common(1)[0][1]


def _kind(outline: Dataset) -> tuple[object, ...]:
    image_type = [str(part).upper() for part in outline.get("ImageType") or []]
    if "LOCALIZER" in image_type or "SCOUT" in image_type:
        return ()
    try:
        cosines = tuple(np.round([float(v) for v in outline.ImageOrientationPatient], 1) + 0.0)
    except (AttributeError, TypeError, ValueError):
        cosines = ()
    return outline.Rows, outline.get("Columns"), cosines


def _frame_count(outline: Dataset) -> int:
    try:
        return int(outline.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        return 1


def _share_a_volume(group: list[_File]) -> bool:
    """Whether multi-frame files of one series are parts of one volume.

    They are if they are a concatenation, or have frames at different places. Files with frames at the same
    places are volumes of their own, such as echoes.
    """
    seen: set[tuple[float, ...]] = set()
    for file in group:
        try:
            header = read_header(file.path)
            frames = frames_of(header, file.path)
        except BadInput:
            return False
        if not all(frame.has_place for frame in frames):
            return False
        if header.get("ConcatenationUID"):
            return True
        here = {tuple(np.round(certain(frame.position), 1)) for frame in frames}
        if here & seen:
            return False
        seen |= here
    return True


def _drop_captures(alone: list[_File], slices: dict[SeriesKey, list[_File]]) -> list[Path]:
    """Take captures out of studies that have other images, and return them."""
    studies = {key.study for key in slices} | {file.key.study for file in alone if not file.is_capture}
    captures = [file.path for file in alone if file.is_capture and file.key.study in studies]
    alone[:] = [file for file in alone if not file.is_capture or file.key.study not in studies]
    return captures
