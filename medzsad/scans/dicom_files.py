"""DICOM files on disk: which files are DICOM, and their headers."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.errors import BadInput
from medzsad.scans.claims import check_deflated

if TYPE_CHECKING:
    from pydicom import Dataset

# All that is needed to sort and place slices. Nothing here names the patient; free text is left out.
TAGS = [
    "SOPClassUID", "Modality", "SeriesInstanceUID", "FrameOfReferenceUID", "InstanceNumber", "ImageType",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored",
    "PixelRepresentation", "BodyPartExamined", "ImagePositionPatient", "ImageOrientationPatient",
    "SliceLocation", "SliceThickness", "SpacingBetweenSlices", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue",
    "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "DiffusionBValue", "TriggerTime",
    "AcquisitionNumber", "AcquisitionTime", "ContentTime",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SequenceOfUltrasoundRegions",
]  # fmt: skip

# Objects that lie beside images in a study and are none, by their Modality.
NOT_IMAGES = {
    "SEG": "a segmentation", "RTSTRUCT": "a radiotherapy structure set", "RTDOSE": "a radiotherapy dose",
    "RTPLAN": "a radiotherapy plan", "SR": "a structured report", "PR": "a presentation state",
    "KO": "a key object note", "REG": "a registration", "DOC": "a document", "ECG": "a waveform",
    "PLAN": "a plan", "FID": "fiducials", "ANN": "annotations", "M3D": "a model",
}  # fmt: skip
# The same by SOP class, for those whose Modality is that of any other image.
NOT_IMAGE_CLASSES = {"1.2.840.10008.5.1.4.1.1.30": "a parametric map"}
# Pictures of what is already there, such as overlays; a scan in its own right is preferred to them.
CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"
# Projections: every file is an image of its own, whatever series it belongs to.
PROJECTIONS = {"CR", "DX", "DR", "MG", "XA", "RF", "PX", "IO", "RG"}
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


def is_dicom(path: Path) -> bool:
    """Whether the file starts as DICOM does, with its preamble or, as some old files, without one."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    if start[128:132] == b"DICM":
        return True
    if len(start) < 16:
        return False
    # Without a preamble: the file starts with an element of group 2 or 8 of a plausible length.
    for order in ("little", "big"):
        group, element = int.from_bytes(start[:2], order), int.from_bytes(start[2:4], order)
        if group in (0x0002, 0x0008) and element <= 0x0100:
            explicit = start[4:6].isalpha() and start[4:6].isupper()
            length = int.from_bytes(start[6:8] if explicit else start[4:8], order)
            if length <= 256:
                return True
    return False


def dicom_files(folder: Path) -> list[Path]:
    """All DICOM files under a folder, by name; hidden files and DICOMDIR indices are skipped."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if not name.startswith(".") and name.upper() != "DICOMDIR" and is_dicom(path):
                found.append(path)
    return found


def read_header(path: Path) -> Dataset:
    """The header, without pixels.

    Raises:
        BadInput: DICOM that cannot be parsed.
    """
    return _read(path, stop_before_pixels=True, specific_tags=TAGS)


def read_dataset(path: Path) -> Dataset:
    """Everything, pixels included.

    Raises:
        BadInput: DICOM that cannot be parsed.
    """
    return _read(path)


def quiet() -> warnings.catch_warnings:
    """A context in which pydicom's warnings, which may quote patient data, are not shown."""
    return warnings.catch_warnings(action="ignore")


def is_media_directory(header: Dataset) -> bool:
    """Whether this is a DICOMDIR, an index of other files."""
    return header.file_meta.get("MediaStorageSOPClassUID") == MEDIA_DIRECTORY


def not_an_image(header: Dataset) -> str | None:
    """What a DICOM object without an image is, in words; None if it holds an image."""
    modality = str(header.get("Modality") or "")
    if modality in NOT_IMAGES:
        return f"{NOT_IMAGES[modality]} ({modality})"
    if header.get("SOPClassUID") in NOT_IMAGE_CLASSES:
        return f"{NOT_IMAGE_CLASSES[header.SOPClassUID]} ({modality})"
    if not header.get("Rows") or not header.get("Columns"):
        return "DICOM without pixel data"
    return None


def is_capture(header: Dataset) -> bool:
    """Whether this is a secondary capture: a screenshot, a scanned film, a drawn result."""
    sop_class = str(header.get("SOPClassUID") or "")
    return sop_class == CAPTURE_CLASS or sop_class.startswith(f"{CAPTURE_CLASS}.")  # the multi-frame ones


def holds_slices(path: Path) -> bool:
    """Whether a DICOM file is a part of a volume (and not an image of its own, such as a radiograph)."""
    try:
        header = read_header(path)
    except BadInput:
        return True  # reading the folder says what is wrong
    if not_an_image(header):
        return True
    if str(header.get("Modality")) in PROJECTIONS:
        return False
    return "ImagePositionPatient" in header or "SliceLocation" in header or "NumberOfFrames" not in header


def _read(path: Path, **options: object) -> Dataset:
    import pydicom

    check_deflated(path)
    try:
        with quiet():
            dataset = pydicom.dcmread(path, force=True, **options)
            for name in TAGS:  # values are parsed on access: broken ones should fail here, not in the middle
                dataset.get(name)
    except Exception as error:  # pydicom raises whatever its parser stumbles over
        raise BadInput(
            f"{path} is a damaged DICOM file (its header cannot be read); export it again."
        ) from error
    if not hasattr(dataset, "file_meta") or dataset.file_meta is None:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    return dataset
