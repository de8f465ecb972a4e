"""DICOM files and folders to scans.

pydicom is called directly: MONAI's ``PydicomReader`` takes a missing slice for a larger spacing and two
series in one folder for one volume. Here every slice is placed by its position and orientation, and
whatever does not fit is left out, resampled or refused, and said.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medzsad.errors import BadInput, certain
from medzsad.scans.affines import display_affine
from medzsad.scans.dicom.collect import choose_series, collect_frames
from medzsad.scans.dicom.files import FILE_SUFFIXES
from medzsad.scans.dicom.frames import Frame
from medzsad.scans.dicom.pixels import PixelReader, display_range, is_colour
from medzsad.scans.dicom.screening import check_directions, natural_order, one_kind
from medzsad.scans.dicom.stack_grid import fill_grid, stack_grid
from medzsad.scans.dicom.volumes import ALWAYS_APART, one_volume
from medzsad.scans.modality import OF_DICOM, guess_modality
from medzsad.scans.scan import Modality, Scan

AXIAL = (np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))


def read_dicom(path: Path, *, series: str | None = None, volume: int | None = None) -> Scan:
    """Read a DICOM file, a folder of them, or a DICOMDIR (then the folder that it lies in).

    Args:
        path: file or folder; folders are searched with their subfolders.
        series: SeriesInstanceUID, or a beginning or end of one; by default the series with the most images.
        volume: which of several volumes at the same positions, counted from 0.

    Returns:
        (columns, rows, slices[, 3]) on a regular grid with right angles; see :mod:`.stack_grid`.

    Raises:
        BadInput: no DICOM, no image, pixels that cannot be decoded, or images that make no volume.
    """
    collected = collect_frames(path)
    in_series, uid, series_notes = choose_series(collected.frames, series, path)
    collected.check_series(in_series[0].series, len(in_series))
    frames, kind_notes = one_kind(in_series)
    check_directions(in_series, frames, path)
    notes = [*collected.notes(), *series_notes, *kind_notes]
    modality = _modality(frames[0])
    pixels = PixelReader(modality or Modality.GREY)
    has_geometry = True
    is_placed = frames[0].has_place
    if not is_placed:
        frames, place_note, has_geometry = _without_places(frames, modality, path)
        notes.append(place_note)
        is_placed = has_geometry and frames[0].has_place
    if frames[0].spacing is None:
        notes.append("The pixel spacing is not known: 1 mm is assumed, so sizes in mm mean nothing.")
        frames = [replace(frame, spacing=(1.0, 1.0)) for frame in frames]
        has_geometry = False
    elif frames[0].spacing_source == "ImagerPixelSpacing":
        notes.append("Pixel spacing is that of the detector: in the patient, sizes are somewhat smaller.")
    elif frames[0].spacing_source == "NominalScannedPixelSpacing":
        notes.append("Pixel spacing is that of a scanned film: in the patient, sizes may differ.")
    details = _details(frames, uid, pixels)
    if frames[0].has_place:
        frames, volume_notes, chosen = one_volume(frames, volume, pixels, path)
        notes += volume_notes
        if chosen:
            details["volume"] = chosen
    elif volume not in (None, 0):
        raise BadInput(f"{path} holds one volume: `volume` {volume} does not exist; leave the option out.")
    first = frames[0]
    if is_placed:
        grid = stack_grid(
            np.array([frame.position for frame in frames]),
            certain(first.axes),
            certain(first.spacing),
            (first.columns, first.rows),
            thickness=first.thickness,
            source=path,
        )
        notes += grid.notes
        details["geometry"] = grid.details
        voxels = fill_grid(grid, map(pixels, frames), details.get("padding_value"))
        affine = grid.affine
    else:
        frames = [replace(frame, position=None) for frame in frames]
        voxels = np.stack([pixels(frame) for frame in frames]).swapaxes(0, 2)
        affine = display_affine((*certain(first.spacing), first.thickness or 1.0))
        details["geometry"] = {"resampled": False, "acquired_slices": len(frames)}

    details["slices"] = len(frames)
    if pixels.inverts(frames[0]):
        notes.append("Grey levels were stored inverted (MONOCHROME1) and turned over.")
    return Scan(
        voxels=voxels,
        affine=affine,
        modality=modality or guess_modality(voxels),
        modality_source="dicom" if modality else "guessed",
        name=_name(path),
        source=path,
        has_geometry=has_geometry,
        notes=tuple(notes),
        details=details,
        frames=tuple(frames),
    )


def _modality(frame: Frame) -> Modality | None:
    """From the header; None where the values must tell."""
    declared = str(frame.header.get("Modality") or "")
    if is_colour(frame):  # a colour image is no CT, whatever series its screenshot was saved to
        return Modality.US if OF_DICOM.get(declared) is Modality.US else Modality.RGB
    return OF_DICOM.get(declared, Modality.GREY) if declared else None


def _without_places(
    frames: list[Frame], modality: Modality | None, path: Path
) -> tuple[list[Frame], str, bool]:
    """Images without position: in the order they can be put in, a note, and whether distances are known.

    Separate files get positions one after the other along the normal, which stand for their order alone where
    distances are not known.
    """
    first = frames[0]
    if len(frames) == 1:
        note = "Its place in the patient is not known: the usual radiological display is assumed."
        return frames, note, True
    if len({frame.path for frame in frames}) == 1:
        note = (
            f"Its {len(frames)} frames have no position: they are stacked as stored; distances mean nothing."
        )
        return frames, note, False
    if modality in (Modality.XRAY, Modality.US, Modality.RGB):
        raise BadInput(
            f"{path} holds {len(frames)} separate images in one series ({modality}), not a volume; give "
            "one file."
        )
    axes = first.axes or AXIAL
    normal = np.cross(*axes)
    locations = {frame.location for frame in frames}
    if None not in locations and len(locations) > 1:
        placed = [replace(frame, position=frame.location * normal, axes=axes) for frame in frames]
        return (
            placed,
            "Slices have no position: they were sorted by SliceLocation; sides are not certain.",
            True,
        )
    by_name = sorted(frames, key=natural_order)
    numbers = [frame.number for frame in by_name if frame.number is not None]
    if len(set(numbers)) > 1 and len(numbers) == len(frames):
        order: list[float] = list(numbers)
        what = ": they were sorted by InstanceNumber"
    elif len(set(numbers)) <= 1 or numbers == sorted(set(numbers)):
        order = list(range(len(frames)))
        what = " and no InstanceNumber of their own: they were put in the order of their file names"
    else:
        raise BadInput(
            f"{path} holds slices without position, of which {len(frames) - len(numbers)} have no "
            "InstanceNumber and the others are not in the order of their file names; export them again."
        )
    placed = [
        replace(frame, position=place * normal, axes=axes)
        for frame, place in zip(by_name, _ranks(by_name, order), strict=True)
    ]
    return placed, f"Slices have no position{what}; sides are not certain.", False


def _ranks(frames: list[Frame], order: list[float]) -> list[int]:
    """Places in the order given, which begin again with each echo, time or b-value of as many images."""
    for key in ALWAYS_APART:
        groups = Counter(frame.keys[key] for frame in frames)
        if len(groups) > 1 and len(set(groups.values())) == 1 and len(frames) > len(groups):
            break
    else:
        ranks = {number: rank for rank, number in enumerate(sorted(set(order)))}
        return [ranks[number] for number in order]
    result = []
    for frame, number in zip(frames, order, strict=True):
        same = zip(frames, order, strict=True)
        result.append(len({n for other, n in same if other.keys[key] == frame.keys[key] and n < number}))
    return result


def _details(frames: list[Frame], uid: str, pixels: PixelReader) -> dict[str, Any]:
    """Facts for the report; nothing that names the patient."""
    first = frames[0]
    syntax = first.header.file_meta.get("TransferSyntaxUID")
    details: dict[str, Any] = {
        "format": "DICOM",
        "series_uid": uid,
        "dicom_modality": str(first.header.get("Modality") or ""),
        "transfer_syntax": syntax.name if syntax else "",
        "files": len({frame.path for frame in frames}),
    }
    body_part = str(first.header.get("BodyPartExamined") or "").strip().upper()
    if body_part.isalpha() and len(body_part) <= 16:
        details["body_part"] = body_part
    if display_range(first):
        details["range"] = display_range(first)
    padding = pixels.padding(first)
    if padding is not None:
        details["padding_value"] = padding
    return details


def _name(path: Path) -> str:
    """Stem of the output files. A dot in a file name is often part of a UID, not the start of a suffix."""
    path = path.resolve()
    if path.is_dir() or path.name.upper() == "DICOMDIR":
        return (path if path.is_dir() else path.parent).name or "scan"
    return path.stem if path.suffix.lower() in FILE_SUFFIXES else path.name
