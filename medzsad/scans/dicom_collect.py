"""The DICOM images at a place, and the choice of one series among them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from medzsad.errors import BadInput
from medzsad.scans.dicom_files import (
    dicom_files,
    is_capture,
    is_dicom,
    is_media_directory,
    not_an_image,
    read_header,
)
from medzsad.scans.dicom_frames import Frame, frames_of
from medzsad.scans.dicom_screening import one_kind


def collect_frames(path: Path) -> tuple[list[Frame], list[str]]:
    """The images of a file, a folder with its subfolders, or the folder that a DICOMDIR lies in.

    Returns:
        The images, and a note on DICOM objects that are none.

    Raises:
        BadInput: nothing there is a DICOM image, or a header cannot be read.
    """
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
            return frames_of(header, path), []
        path = path.parent
    files = dicom_files(path)
    if not files:
        raise BadInput(_why_no_dicom(path))
    frames: list[Frame] = []
    others: dict[str, int] = defaultdict(int)
    for file in files:
        header = read_header(file)
        reason = not_an_image(header)
        if reason:
            others[reason] += 1
        else:
            frames += frames_of(header, file)
    listed = ", ".join(f"{count} x {reason}" for reason, count in sorted(others.items()))
    if not frames:
        raise BadInput(f"{path} holds DICOM files but no image ({listed}); give the folder of the images.")
    return frames, [f"DICOM files without an image were left out: {listed}."] if others else []


def choose_series(frames: list[Frame], wanted: str | None, path: Path) -> tuple[list[Frame], str, list[str]]:
    """One of the series among images: the one asked for, or the one with the most images for a volume, and a
    series of captures only if there is no other.

    Args:
        frames: images of any series.
        wanted: SeriesInstanceUID, or a beginning or end that only one has.
        path: what to name in an error.

    Returns:
        Its images, its UID, and a note on the other series, without patient data.

    Raises:
        BadInput: ``wanted`` names no series or several; the message lists them.
    """
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[str(frame.header.get("SeriesInstanceUID") or "")].append(frame)
    length = 8  # short names that still tell the series apart
    while len({uid[-length:] for uid in groups}) < len(groups):
        length += 4
    # The most images that can make one volume: scouts in many directions do not outnumber a scan.
    # Captures come last: they picture another series, image by image, and would be as many.
    ranked = sorted(
        groups, key=lambda uid: (is_capture(groups[uid][0].header), -len(one_kind(groups[uid])[0]), uid)
    )
    if wanted is None:
        chosen = ranked[0]
    else:
        matches = [uid for uid in groups if uid == wanted] or [
            uid for uid in ranked if wanted and (uid.startswith(wanted) or uid.endswith(wanted))
        ]
        if len(matches) != 1:
            listed = "; ".join(_series_label(uid, groups[uid], length) for uid in ranked[:8])
            which = "no series" if not matches else f"{len(matches)} series"
            raise BadInput(f"{path} has {which} that --series {wanted} names; there are: {listed}.")
        chosen = matches[0]
    if len(groups) == 1:
        return groups[chosen], chosen, []
    others = [_series_label(uid, groups[uid], length) for uid in ranked if uid != chosen]
    listed = "; ".join(others[:8]) + (f"; and {len(others) - 8} more" if len(others) > 8 else "")
    why = "the largest" if wanted is None else "as asked"
    note = (
        f"There are {len(groups)} series: {_series_label(chosen, groups[chosen], length)} was read, "
        f"{why}. Others (--series chooses): {listed}."
    )
    return groups[chosen], chosen, [note]


def _why_no_dicom(path: Path) -> str:
    from medzsad.scans.images2d import is_image
    from medzsad.scans.volume_files import is_volume

    files = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
    if not files:
        return f"{path} is an empty folder; give a scan file or a folder with a DICOM series."
    readable = sum(is_volume(file) or is_image(file) for file in files)
    if readable:
        return f"{path} holds no DICOM series but {readable} NIfTI or other scan files; give one of them."
    return (
        f"{path} holds {len(files)} files, none of them a scan; give a scan or a folder with a DICOM series."
    )


def _series_label(uid: str, frames: list[Frame], length: int) -> str:
    modality = str(frames[0].header.get("Modality") or "no modality")
    images = "1 image" if len(frames) == 1 else f"{len(frames)} images"
    return f"...{uid[-length:]} ({modality}, {images})" if uid else f"without UID ({modality}, {images})"
