"""DICOM files on disk: which files are DICOM, and their headers."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.errors import BadInput
from medzsad.scans.claims import check_deflated
from medzsad.scans.files import walk
from medzsad.scans.library_warnings import hushed

if TYPE_CHECKING:
    from pydicom import Dataset

# All that is needed to sort and place slices. Nothing here names the patient; free text is left out.
TAGS = [
    "SOPClassUID", "Modality", "SeriesInstanceUID", "FrameOfReferenceUID", "InstanceNumber", "ImageType",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored",
    "PixelRepresentation", "BodyPartExamined", "ImagePositionPatient", "ImageOrientationPatient",
    "SliceLocation", "SliceThickness", "SpacingBetweenSlices", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue",
    "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "InversionTime", "FlipAngle", "DiffusionBValue",
    "DiffusionGradientOrientation", "TriggerTime", "NominalPercentageOfCardiacPhase", "FrameReferenceTime",
    "KVP", "ConvolutionKernel", "ComplexImageComponent", "StackID", "AcquisitionNumber", "AcquisitionTime",
    "ContentTime", "ConcatenationUID", "TotalPixelMatrixColumns", "TotalPixelMatrixRows",
    "ModalityLUTSequence",
    "EnergyWindowVector", "RRIntervalVector", "TimeSlotVector", "PhaseVector", "TimeSliceVector",
    "SliceVector", "DetectorInformationSequence",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SequenceOfUltrasoundRegions",
]  # fmt: skip
# Where Siemens, Philips and GE keep the b-value.
B_VALUE_TAGS = ((0x0019, 0x100C), (0x2001, 0x1003), (0x0043, 0x1039))
# Where Siemens and UIH keep how many slices lie side by side in one image, and who says so.
TILE_TAGS = ((0x0019, 0x0010), (0x0019, 0x100A), (0x0065, 0x0010), (0x0065, 0x1050))
# What else tells people and series apart. Read, hashed into a SeriesKey and dropped again.
PERSON_TAGS = ["PatientID", "PatientName", "PatientBirthDate"]
SERIES_TAGS = [
    "StudyInstanceUID", "StudyID", "StudyDate", "AccessionNumber", "PatientSex", "PatientAge",
    "SeriesNumber", "SeriesDescription", "ProtocolName",
]  # fmt: skip

# Objects that lie beside images in a study and are none, by their Modality.
NOT_IMAGES = {
    "SEG": "a segmentation", "RTSTRUCT": "a radiotherapy structure set", "RTDOSE": "a radiotherapy dose",
    "RTPLAN": "a radiotherapy plan", "SR": "a structured report", "PR": "a presentation state",
    "KO": "a key object note", "REG": "a registration", "DOC": "a document", "ECG": "a waveform",
    "PLAN": "a plan", "FID": "fiducials", "ANN": "annotations", "M3D": "a model",
    "RTRECORD": "a radiotherapy record", "RWV": "a value mapping", "AU": "a sound recording",
}  # fmt: skip
STORAGE = "1.2.840.10008.5.1.4.1.1."
# The same by SOP class, which stands for those below it, too: their Modality may be that of any image.
NOT_IMAGE_CLASSES = {
    f"{STORAGE}30": "a parametric map", f"{STORAGE}4.2": "a spectrum", f"{STORAGE}9": "a waveform",
    f"{STORAGE}11": "a presentation state", f"{STORAGE}66": "raw data, a registration or a segmentation",
    f"{STORAGE}67": "a value mapping", f"{STORAGE}88": "a structured report",
    f"{STORAGE}104": "a document", f"{STORAGE}481.2": "a radiotherapy dose",
    f"{STORAGE}481.3": "a radiotherapy structure set", f"{STORAGE}481.5": "a radiotherapy plan",
}  # fmt: skip
# Pictures of what is already there, such as overlays; a scan in its own right is preferred to them.
CAPTURE_CLASS = f"{STORAGE}7"
WHOLE_SLIDE_CLASS = f"{STORAGE}77.1.6"
# Projections: every file is an image of its own, whatever series it belongs to. By Modality and SOP class.
PROJECTIONS = {"CR", "DX", "DR", "MG", "XA", "RF", "PX", "IO", "RG", "RTIMAGE"}
PROJECTION_CLASSES = (f"{STORAGE}1", f"{STORAGE}12", f"{STORAGE}481.1")
# Slices even where no file says at which place; any other image without a place is one of its own.
SLICE_MODALITIES = {"CT", "MR", "PT", "NM", ""}
PICTURE_CLASSES = (CAPTURE_CLASS, f"{STORAGE}3", f"{STORAGE}6", f"{STORAGE}77.1")  # ultrasound, photographs
SLICE_CLASSES = (f"{STORAGE}2", f"{STORAGE}4", f"{STORAGE}128", f"{STORAGE}20")
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
FILE_SUFFIXES = {".dcm", ".dicom", ".ima"}


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """What tells series apart; nothing of it can be read as a name.

    Attributes:
        uid: SeriesInstanceUID, or where there is none a UID made from study, number, description and folder.
        person: a hash of who was scanned.
        study: a hash of person and study.
        part: a hash of study and series number, for files of several series under one UID.
        is_made: whether the file has no SeriesInstanceUID.
    """

    uid: str
    person: str = ""
    study: str = ""
    part: str = ""
    is_made: bool = False


class UnusableFile(BadInput):
    """A DICOM file whose header, or kind of image, cannot be used.

    Attributes:
        reason: what it holds, without the file's name.
    """

    def __init__(self, path: Path, reason: str, advice: str = "correct it, or export the file again") -> None:
        super().__init__(f"{path} holds {reason}; {advice}.")
        self.reason = reason


@contextlib.contextmanager
def unusable(path: Path, reason: str) -> Iterator[None]:
    """Turn a refusal into that of one file, which costs no other file of its folder; its words stay."""
    try:
        yield
    except BadInput as error:
        fault = UnusableFile(path, reason)
        fault.args = error.args
        raise fault from error


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


def dicom_files(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """Return all DICOM files under a folder, by name, and those that could be some but cannot be read, and
    why."""
    found: list[Path] = []
    unreadable: dict[Path, str] = {}
    for _, files, faults in walk(folder):
        found += [path for path in files if is_dicom(path)]
        unreadable |= {path: fault for path, fault in faults.items() if may_be_dicom(path)}
    return found, unreadable


def may_be_dicom(path: Path) -> bool:
    """Return whether a name could be that of a DICOM file: one ending of its own, or none."""
    suffix = path.suffix.lower()
    return suffix in FILE_SUFFIXES or not re.fullmatch(r"\.[a-z][a-z0-9]{0,5}", suffix)


def read_header(path: Path) -> Dataset:
    """Return the header without pixels, and without anything that names the patient.

    Its attribute ``series_key`` is the file's :class:`SeriesKey`.

    Raises:
        UnusableFile: DICOM that cannot be parsed.
    """
    names = [*TAGS, *B_VALUE_TAGS, *TILE_TAGS, *PERSON_TAGS, *SERIES_TAGS]
    return _keyed(_read(path, stop_before_pixels=True, specific_tags=names), path)


def read_outline(path: Path) -> Dataset:
    """Return the first part of the header, up to the size of the image: all that is needed to tell what a
    file is and which series it belongs to, in half the time of :func:`read_header`.

    Raises:
        UnusableFile: DICOM that cannot be parsed.
    """
    from pydicom.filereader import read_partial
    from pydicom.tag import BaseTag, Tag

    with unusable(path, "more than may be unpacked"):
        check_deflated(path)
    names = [*TAGS, *PERSON_TAGS, *SERIES_TAGS]
    tags: list[BaseTag | int] = [tag for tag in map(Tag, names) if tag <= 0x00280011]
    try:
        with quiet(), path.open("rb") as file:
            outline = read_partial(
                file, stop_when=lambda tag, *_: tag > 0x00280011, specific_tags=tags, force=True
            )
            for tag in tags:
                outline.get(tag)
    except Exception as error:  # pydicom raises whatever its parser stumbles over
        raise UnusableFile(path, "a header that cannot be read") from error
    return _keyed(outline, path)


def series_key(header: Dataset, path: Path) -> SeriesKey:
    """Return what tells the file's series from others; see :class:`SeriesKey`."""
    person = _hash(_words(header, name) for name in PERSON_TAGS)
    study = _words(header, "StudyInstanceUID")
    texts = [_words(header, name) for name in SERIES_TAGS]
    uid = str(header.get("SeriesInstanceUID") or "").strip()
    if uid:
        study = _hash([person, study] if study else [person, *texts[:4]])
        return SeriesKey(uid, person, study, _hash([study, _words(header, "SeriesNumber")]))
    # Nothing but the folder may be left to tell two people apart.
    texts += [_words(header, name) for name in ("Modality", "FrameOfReferenceUID")]
    made = _hash([person, *texts, str(path.parent.resolve())])
    return SeriesKey(f"2.25.{int(made, 16)}", person, _hash([person, *texts[:6]]), made, True)


def read_dataset(path: Path, *, with_pixels: bool = True) -> Dataset:
    """Return everything that a file holds, pixels included.

    Raises:
        UnusableFile: DICOM that cannot be parsed.
    """
    return _read(path, stop_before_pixels=not with_pixels)


def quiet() -> contextlib.AbstractContextManager[None]:
    """Return a context in which pydicom's warnings, which may quote patient data, are not shown."""
    return hushed()


def is_media_directory(header: Dataset) -> bool:
    """Whether this is a DICOMDIR, an index of other files."""
    return header.file_meta.get("MediaStorageSOPClassUID") == MEDIA_DIRECTORY


def not_an_image(header: Dataset) -> str | None:
    """Return what a DICOM object without an image is, in words; None if it holds an image."""
    modality = str(header.get("Modality") or "")
    if modality in NOT_IMAGES:
        return f"{NOT_IMAGES[modality]} ({modality})"
    for sop_class, name in NOT_IMAGE_CLASSES.items():
        if _is_class(header, sop_class):
            return f"{name} ({modality})" if modality else name
    if not header.get("Rows") or not header.get("Columns"):
        return "DICOM without pixel data (perhaps cut short)"
    return None


def may_be_cut_short(header: Dataset) -> bool:
    """Return whether a header without the size of an image is of a kind that should have one, or of none."""
    if str(header.get("Modality") or "") in NOT_IMAGES:
        return False
    known = (*PROJECTION_CLASSES, *PICTURE_CLASSES, *SLICE_CLASSES)
    return not header.get("Rows") and (not header.get("SOPClassUID") or _is_class(header, *known))


def is_capture(header: Dataset) -> bool:
    """Return whether this is a secondary capture: a screenshot, a scanned film, a drawn result."""
    return _is_class(header, CAPTURE_CLASS)  # the multi-frame ones are below it


def is_whole_slide(header: Dataset) -> bool:
    """Return whether this is a whole-slide image of microscopy, whose frames are tiles."""
    return _is_class(header, WHOLE_SLIDE_CLASS)


def stands_alone(header: Dataset) -> bool:
    """Return whether the file is an image (or a loop) of its own, and no part of a volume: a radiograph, a
    photograph, an ultrasound still."""
    modality = str(header.get("Modality") or "")
    if modality in PROJECTIONS or _is_class(header, *PROJECTION_CLASSES):
        return True
    if "ImagePositionPatient" in header or "SliceLocation" in header:
        return False
    if int(header.get("NumberOfFrames") or 1) > 1:
        return "PerFrameFunctionalGroupsSequence" not in header
    if _is_class(header, *SLICE_CLASSES):
        return False
    return modality not in SLICE_MODALITIES or _is_class(header, *PICTURE_CLASSES)


def _is_class(header: Dataset, *classes: str) -> bool:
    """Return whether the SOP class is one of these, or below one."""
    sop_class = str(header.get("SOPClassUID") or "")
    return any(sop_class == one or sop_class.startswith(f"{one}.") for one in classes)


def _words(header: Dataset, name: str) -> str:
    """Return a text as it is compared: capitals and the marks between the parts of a name do not count."""
    try:
        with quiet():
            text = str(header.get(name) or "")
    except Exception:  # a value that breaks its rules tells nothing apart, and costs no image
        return ""
    return " ".join(text.casefold().replace("^", " ").split())


def _hash(texts: Iterable[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "replace"), digest_size=12).hexdigest()


def _keyed(header: Dataset, path: Path) -> Dataset:
    """Return the header with its key, and without what only served to make it."""
    key = series_key(header, path)
    for name in (*PERSON_TAGS, *SERIES_TAGS):
        if name in header:
            delattr(header, name)
    header.series_key = key
    return header


def _read(path: Path, **options: Any) -> Dataset:
    import pydicom

    with unusable(path, "more than may be unpacked"):
        check_deflated(path)
    try:
        with quiet():
            dataset = pydicom.dcmread(path, force=True, **options)
            for name in TAGS:  # values are parsed on access: broken ones should fail here, not in the middle
                dataset.get(name)
    except Exception as error:  # pydicom raises whatever its parser stumbles over
        raise UnusableFile(path, "a header that cannot be read (damaged DICOM)") from error
    if not hasattr(dataset, "file_meta") or dataset.file_meta is None:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    return dataset
