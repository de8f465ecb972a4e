"""Any scan file, DICOM folder or image in memory to a :class:`~medzsad.scans.scan.Scan`."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.limits import require_file
from medzsad.scans.folders import walk, why_unreadable
from medzsad.scans.images2d import is_image, read_image
from medzsad.scans.in_memory import scan_in_memory
from medzsad.scans.modality import hu_note, parse_modality
from medzsad.scans.naming import check_name
from medzsad.scans.own_results import is_result, refuse_result
from medzsad.scans.sanity import check_sane
from medzsad.scans.scan import Modality, Scan
from medzsad.scans.showing import LUMINANCE
from medzsad.scans.volume_files import is_listed_volume, is_volume, read_volume

FORMATS = "NIfTI (.nii, .nii.gz), NRRD, MetaImage, MGZ, DICOM, PNG, JPEG or TIFF"


def read_scan(
    path: Any,
    *,
    series: str | None = None,
    volume: int | None = None,
    modality: str | Modality | None = None,
    affine: Any = None,
    name: str | None = None,
) -> Scan:
    """Read a scan, whatever its format, or take one that is in memory already.

    >>> scan = read_scan("head_ct/")                                # doctest: +SKIP
    >>> scan.voxels.shape, scan.spacing, scan.modality, scan.notes  # doctest: +SKIP
    >>> scan = read_scan(voxels, affine=affine, modality="ct")      # doctest: +SKIP

    Args:
        path: a NIfTI, NRRD, MetaImage or MGZ file, a 2D image, a DICOM file, a folder with a DICOM series, or
            a DICOMDIR. Or an object: a NumPy array of real numbers: (X, Y, Z) or (X, Y, Z, 3), with
            ``affine``; or a 2D image, (rows, columns) or uint8 (rows, columns, 3), without. A MONAI
            ``MetaTensor`` (C, X, Y, Z) or (C, X, Y), see :func:`medzsad.scans.tensors.scan_of_tensor`; a
            nibabel image; a SimpleITK image, whose LPS becomes RAS+.
        series: DICOM SeriesInstanceUID, or a beginning or end of it that only one series has. Without it the
            series with the most slices is read, and the others are listed in the notes.
        volume: which volume of a 4D file, series or array, counted from 0.
        modality: overrides what the file says, or what is guessed from the values.
        affine: of a NumPy array, (4, 4), voxel index to world mm, RAS+. Without it voxels of 1 mm along
            right, anterior and superior are assumed, and a note says so.
        name: stem of the output files; by default the file's or folder's, and ``array``, ``tensor`` or
            ``image`` where there is none.

    Returns:
        The scan. Whatever was repaired, assumed or chosen on the way is said in its ``notes``. An array of
        float32 is not copied.

    Raises:
        BadInput: it is no scan, damaged, ambiguous (4D without ``volume``), or holds nothing to look at
            (NaN or infinite voxels, one constant value).
    """
    wanted = parse_modality(modality)
    if isinstance(path, str | os.PathLike):
        _refuse_empty(path)
        if affine is not None:
            raise BadInput(f"{path} has an affine of its own: affine= belongs to NumPy arrays; leave it out.")
        scan = _read(Path(path), series, volume)
    else:
        if series is not None:
            raise BadInput(
                f"series= chooses among DICOM files, not in a {type(path).__name__}; leave it out."
            )
        scan = scan_in_memory(path, affine=affine, volume=volume, modality=wanted)
    if name is not None:
        scan = replace(scan, name=check_name(name))
    _check_values(scan)
    scan = _with_modality(scan, wanted)
    return scan.with_notes(hu_note(scan.voxels) if scan.modality is Modality.CT else None)


def _refuse_empty(path: str | os.PathLike[str]) -> None:
    if not os.fspath(path):  # pathlib takes it for the current folder
        raise BadInput("the path of the scan is empty; name a file or a folder.")


def _read(path: Path, series: str | None, volume: int | None) -> Scan:
    if not os.path.lexists(path):  # nor a link that leads nowhere; false for names that nothing can have
        raise BadInput(f"{path} does not exist; check the path.")
    if not path.is_dir() and not path.is_symlink():
        require_file(path)
    if series is not None and (is_volume(path) or is_image(path)):
        raise BadInput(f"{path} is not DICOM: `series` only chooses among DICOM series; leave it out.")
    fault = why_unreadable(path)
    if fault == "an empty file":
        raise BadInput(f"{path} is empty (0 bytes); copy or export it again.")
    if fault:
        raise BadInput(f"{path} is {fault}; fetch its content, or check its permissions.")
    if path.is_file() and is_volume(path):
        return read_volume(path, volume=volume)
    if path.is_file() and is_image(path):
        if volume not in (None, 0):
            raise BadInput(f"{path} is one image: `volume` {volume} does not exist; leave the option out.")
        return read_image(path)
    from medzsad.scans.dicom.series import read_dicom

    return read_dicom(path, series=series, volume=volume)


@dataclass(frozen=True, slots=True)
class ScanPlace:
    """Where a scan lies: what :func:`read_scan` takes.

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
    (:func:`~medzsad.scans.dicom.find.dicom_scans`). Links that lead nowhere, empty files and files that may
    not be opened are scans that fail when they are read, unless DICOM slices lie beside them, whose reader
    says so. Hidden files and folders are skipped, and medzsad's own results. A DICOMDIR stands for its
    folder.

    Raises:
        BadInput: there is no such place, no scan in it, or it is a result of medzsad (a scan that was saved
            beside its results is a scan).
    """
    from medzsad.scans.dicom.files import is_dicom, is_media_directory, may_be_dicom, read_outline
    from medzsad.scans.dicom.find import dicom_scans

    _refuse_empty(path)
    path = Path(path)
    if not os.path.lexists(path):  # nor a link that leads nowhere; false for names that nothing can have
        raise BadInput(f"{path} does not exist; check the path.")
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


def _check_values(scan: Scan) -> None:
    """Refuse voxels that no detector can look at."""
    voxels = scan.voxels
    check_sane(scan)
    if voxels.size == 0:
        raise BadInput(f"{scan.source} holds no voxels: its shape is {' x '.join(map(str, scan.shape))}.")
    # A sum is finite only if every voxel is, and takes no memory; counting is for the message.
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(voxels.sum(dtype=np.float64))
    if not finite:
        bad = sum(np.count_nonzero(~np.isfinite(voxels[:, :, k])) for k in range(voxels.shape[2]))
        if bad:
            raise BadInput(
                f"{scan.source} has {bad} NaN or infinite voxels ({bad / voxels.size:.2%}); replace them, "
                "for example with numpy.nan_to_num, and try again."
            )
    if voxels.min() == voxels.max():
        raise BadInput(
            f"{scan.source} is constant (every voxel is {voxels.flat[0]:g}); give the file of the scan "
            "itself."
        )


def _with_modality(scan: Scan, wanted: Modality | None) -> Scan:
    """Return the scan with the modality that was asked for, or a note on the one that was guessed."""
    if wanted is None:
        if scan.modality_source != "guessed" or scan.is_2d:
            return scan
        note = f"The modality is guessed from the values: {scan.modality} (`modality` sets it)."
        if any(earlier.startswith("The modality is guessed") for earlier in scan.notes):
            return scan  # a tensor that was read before
        return scan.with_notes(note)
    if scan.is_colour and wanted is Modality.CT:
        raise BadInput(f"{scan.source} is a colour image, which has no HU: `modality` ct cannot be.")
    if scan.is_colour and wanted not in (Modality.RGB, Modality.US):
        note = f"Its colours were turned to grey levels, because the modality was given as {wanted}."
        scan = replace(scan.with_notes(note), voxels=scan.voxels @ LUMINANCE)
    elif not scan.is_colour and wanted is Modality.RGB:
        raise BadInput(f"{scan.source} is a grey image: `modality` rgb cannot be; leave it out or say grey.")
    return replace(scan, modality=wanted, modality_source="given")
