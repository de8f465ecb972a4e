"""Small DICOM files made on the fly, with pydicom 2.4 or 3."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT_IMAGE = UID("1.2.840.10008.5.1.4.1.1.2")
ENHANCED_CT_IMAGE = UID("1.2.840.10008.5.1.4.1.1.2.1")
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SERIES = "1.2.826.0.1.3680043.8.498.1"


def image(pixels: np.ndarray, **tags: Any) -> FileDataset:
    """A data set with ``pixels`` (rows, columns[, 3]), or (frames, rows, columns) with ``NumberOfFrames``.

    Tags are DICOM keywords; None removes one of the defaults, which are those of a CT slice.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CT_IMAGE)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    colour = pixels.shape[-1] == 3 and "NumberOfFrames" not in tags
    defaults = {
        "SOPClassUID": CT_IMAGE,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": SERIES,
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.9",
        "PatientName": "Secret^Patient",
        "PatientID": "SECRET42",
        "SeriesDescription": "SECRET words",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "InstanceNumber": 1,
        "Rows": pixels.shape[-3] if colour else pixels.shape[-2],
        "Columns": pixels.shape[-2] if colour else pixels.shape[-1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": pixels.dtype.itemsize * 8,
        "BitsStored": pixels.dtype.itemsize * 8,
        "HighBit": pixels.dtype.itemsize * 8 - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelSpacing": [1.0, 1.0],
        "SliceThickness": 2.0,
        "ImagePositionPatient": [0.0, 0.0, 0.0],
        "ImageOrientationPatient": list(AXIAL),
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    if colour:
        defaults["PlanarConfiguration"] = 0
    for name, value in (defaults | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    return dataset


def save(dataset: FileDataset, path: Path) -> Path:
    """Write a data set as a complete DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if int(pydicom.__version_info__[0]) >= 3:
        dataset.save_as(path, enforce_file_format=True)
    else:
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
        dataset.save_as(path, write_like_original=False)
    return path


def write(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    """:func:`image` and :func:`save`."""
    return save(image(pixels, **tags), path)


def write_series(folder: Path, slices: np.ndarray, depths: list[float], **tags: Any) -> Path:
    """A folder of CT slices at ``depths`` along z; file names and instance numbers run against the depths.

    Args:
        folder: made if needed.
        slices: int16 (N, rows, columns).
        depths: mm.
    """
    for index, (pixels, depth) in enumerate(zip(slices, depths, strict=True)):
        number = len(depths) - index
        position = {"ImagePositionPatient": [-10.0, -20.0, float(depth)], "InstanceNumber": number}
        write(folder / f"{number:04d}.dcm", pixels, **(position | tags))
    return folder


def functional_group(**sequences: dict[str, Any]) -> pydicom.Dataset:
    """One item of a functional groups sequence: ``PixelMeasuresSequence={"PixelSpacing": ...}``."""
    group = pydicom.Dataset()
    for name, values in sequences.items():
        item = pydicom.Dataset()
        for tag, value in values.items():
            setattr(item, tag, value)
        setattr(group, name, Sequence([item]))
    return group


def ramp(count: int, rows: int = 6, columns: int = 5) -> np.ndarray:
    """int16 (count, rows, columns) in which every pixel differs, and grows by 100 from slice to slice."""
    slices = np.arange(count, dtype=np.int16)[:, None, None] * 100
    return slices + np.arange(rows * columns, dtype=np.int16).reshape(rows, columns)


def write_volumes(
    folder: Path,
    tags: Callable[[int, int], dict[str, Any]],
    *,
    volumes: int = 3,
    slices: int = 6,
    shift: float = 0.0,
    missing: Iterable[tuple[int, int]] = (),
    slice_by_slice: bool = False,
) -> Path:
    """A folder with an MR series of several volumes; values of slice k of volume v begin at 1000 v + k.

    Args:
        folder: made if needed.
        tags: of volume ``v`` and slice ``k``, beside position (``2 * k + shift * v``) and number.
        volumes, slices: how many.
        shift: mm along z from volume to volume.
        missing: (volume, slice) that are not written; the numbers leave them out, too.
        slice_by_slice: numbers run over the volumes of a slice first.
    """
    order = [(v, k) for v in range(volumes) for k in range(slices)]
    if slice_by_slice:
        order = [(v, k) for k in range(slices) for v in range(volumes)]
    for number, (v, k) in enumerate(order, start=1):
        if (v, k) not in set(missing):
            pixels = np.arange(20, dtype=np.int16).reshape(4, 5) + np.int16(1000 * v + k)
            place = {"ImagePositionPatient": [0.0, 0.0, 2.0 * k + shift * v], "InstanceNumber": number}
            write(folder / f"{number:03d}.dcm", pixels, **(place | {"Modality": "MR"} | tags(v, k)))
    return folder
