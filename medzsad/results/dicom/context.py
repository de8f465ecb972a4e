"""What every DICOM result has in common: the source's headers, identifiers, equipment and codes."""

from __future__ import annotations

import copy
import hashlib
import json
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from medzsad.errors import BadInput
from medzsad.results.dicom.source_frames import SourceFrames, source_frames
from medzsad.results.prediction import ScanPrediction
from medzsad.scans.library_warnings import hushed

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.sr.coding import Code

    from medzsad.scans.scan import Scan

Result = TypeVar("Result", bound="Dataset")
SCHEME = "99MEDZSAD"  # the prefix 99 marks a private coding scheme
RESEARCH = "RESEARCH"
SOURCE_IMAGE = ("121322", "DCM", "Source image for image processing operation")
# A kind's place in the series numbers: that of the source times 100, plus this.
KINDS = {"seg": 1, "seg-fractional": 2, "pm": 3, "sr": 4, "sc": 5}
# Type 2 attributes of the patient and the study: they may be empty, but must be there.
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
IDENTITY = (
    *MAY_BE_EMPTY, "IssuerOfPatientID", "OtherPatientIDsSequence", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence", "StudyDescription",
    "SpecificCharacterSet", "TimezoneOffsetFromUTC",
)  # fmt: skip
# Of series and image, what says how the patient lay and which side is shown.
SIDES = ("Laterality", "ImageLaterality", "PatientPosition", "BodyPartExamined", "AnatomicalOrientationType")
# BodyPartExamined (PS3.16, annex L) to SNOMED CT.
REGIONS = {
    "HEAD": ("69536005", "Head"), "BRAIN": ("12738006", "Brain"), "NECK": ("45048000", "Neck"),
    "CHEST": ("816094009", "Chest"), "ABDOMEN": ("818981001", "Abdomen"), "PELVIS": ("816092008", "Pelvis"),
    "BREAST": ("76752008", "Breast"), "LIVER": ("10200004", "Liver"), "PROSTATE": ("41216001", "Prostate"),
    "SPINE": ("421060004", "Spine"), "KNEE": ("72696002", "Knee"), "HEART": ("80891009", "Heart"),
    "KIDNEY": ("64033007", "Kidney"), "LUNG": ("39607008", "Lung"),
}  # fmt: skip


@dataclass
class DicomContext:
    """A prediction with all that its DICOM results share.

    Attributes:
        prediction: what is to be written.
        frames: the same on the acquired images.
        headers: headers of the source, without pixels, fit for highdicom: one for each image along the stack,
            or that of the one multi-frame file with its frames in that order.
        original: the first header as it was read; results carry its identity.
        frame_numbers: for a multi-frame source, the number in the file, from 1, of each image; else empty.
    """

    prediction: ScanPrediction
    frames: SourceFrames
    headers: list[Dataset]
    original: Dataset
    frame_numbers: tuple[int, ...]

    @classmethod
    def of(cls, prediction: ScanPrediction) -> DicomContext:
        """Read the headers again.

        Raises:
            BadInput: no DICOM source, or one without what DICOM results must refer to.
        """
        check_source(prediction.scan)
        with silenced():
            headers, original, numbers = _source_headers(prediction.scan)
            return cls(prediction, source_frames(prediction), headers, original, numbers)

    @property
    def placed(self) -> bool:
        """Whether the source has a frame of reference and positions in it."""
        return "FrameOfReferenceUID" in self.headers[0]

    @cached_property
    def parameters(self) -> dict[str, str]:
        """How the result was computed, for people."""
        prediction = self.prediction
        parameters = {
            "model": str(prediction.settings.get("model")),
            "method": str(prediction.settings.get("method")),
            "planes": "+".join(str(plane) for plane in prediction.planes),
            "intensity": prediction.scaling.description,
            "threshold_rule": prediction.threshold_rule,
            "threshold": f"{prediction.threshold:.6g}",
        }
        # The source's character set may be the basic one.
        return {key: value.encode("ascii", "replace").decode() for key, value in parameters.items()}

    def series_uid(self, kind: str) -> str:
        """Return the same for every run with the same source, model and settings."""
        return self._uid("series", kind)

    def instance_uid(self, kind: str, index: int = 0) -> str:
        """Return the same for every run with the same result: stored again, it is no further object."""
        return self._uid("instance", kind, index, self._content)

    def tracking_uid(self, number: int) -> str:
        """Of a lesion candidate, from 1; the same in all results of a prediction."""
        return self._uid("candidate", number, self._content)

    def names(self, kind: str, description: str) -> dict[str, Any]:
        """Return the arguments that every highdicom object takes: identifiers, numbers and equipment."""
        from medzsad import __version__

        source = self.original.get("SeriesNumber")
        number = 100 * int(source) if source and 0 < int(source) < 10_000_000 else 9000
        return {
            "series_instance_uid": self.series_uid(kind),
            "series_number": number + KINDS[kind],
            "sop_instance_uid": self.instance_uid(kind),
            "instance_number": 1,
            "manufacturer": "medzsad",
            "manufacturer_model_name": self.parameters["model"][:64],
            "software_versions": __version__,
            "device_serial_number": __version__,
            "series_description": f"{RESEARCH} medzsad: {description}",
        }

    def region(self) -> Code | None:
        """Return the anatomic region that the source names, if it is known."""
        name = str(self.original.get("BodyPartExamined") or "").strip().upper()
        return code(REGIONS[name][0], "SCT", REGIONS[name][1]) if name in REGIONS else None

    def reference(self, index: int) -> Dataset:
        """Return an item that refers to an acquired image as the source of processing."""
        from highdicom.sr import CodedConcept
        from pydicom import Dataset

        header = self.headers[0 if self.frame_numbers else index]
        item = Dataset()
        item.ReferencedSOPClassUID = header.SOPClassUID
        item.ReferencedSOPInstanceUID = header.SOPInstanceUID
        if self.frame_numbers:
            item.ReferencedFrameNumber = self.frame_numbers[index]
        item.PurposeOfReferenceCodeSequence = [CodedConcept(*SOURCE_IMAGE)]
        return item

    def finish(self, dataset: Result, *, image: bool = True) -> Result:
        """Give a result the identity of its source, as it stands there, and the source's frame numbers.

        Args:
            dataset: changed in place, and returned.
            image: whether it shows the patient, so that it has sides.
        """
        for keyword in (*IDENTITY, *(SIDES if image else ())):
            if keyword in self.original:
                dataset[keyword] = copy.deepcopy(self.original[keyword])
        if self.frame_numbers:
            self._number_frames(dataset)
        return dataset

    def _number_frames(self, dataset: Dataset) -> None:
        """Refer to the source's frames by their numbers in the file: highdicom saw them put in order."""
        done = set()  # segments of one image share its reference
        for group in dataset.get("PerFrameFunctionalGroupsSequence") or []:
            for derivation in group.get("DerivationImageSequence") or []:
                for image in derivation.get("SourceImageSequence") or []:
                    if "ReferencedFrameNumber" in image and id(image) not in done:
                        done.add(id(image))
                        image.ReferencedFrameNumber = self.frame_numbers[int(image.ReferencedFrameNumber) - 1]

    @cached_property
    def _content(self) -> str:
        digest = hashlib.sha256(self.frames.anomaly_map.tobytes())
        digest.update(f"{self.prediction.threshold!r} {self.prediction.score!r}".encode())
        return digest.hexdigest()

    def _uid(self, *words: object) -> str:
        from medzsad import __version__

        settings = {"settings": self.prediction.settings, "parameters": self.parameters}
        source = [str(header.SOPInstanceUID) for header in self.headers]
        facts = [__version__, source, self.frame_numbers, settings, words]
        text = json.dumps(facts, default=str, sort_keys=True)
        # A UUID as a decimal number under 2.25 is a UID that nobody has to assign (PS3.5, B.2).
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}"


def code(value: str, scheme: str, meaning: str) -> Code:
    """Return a coded concept."""
    from pydicom.sr.coding import Code

    return Code(value, scheme, meaning)


def require_highdicom() -> None:
    """Raise BadInput unless highdicom is installed."""
    import importlib.util

    if importlib.util.find_spec("highdicom") is None:
        raise BadInput('DICOM results need highdicom; install it with: pip install "medzsad[dicom]".')


def check_source(scan: Scan, kinds: Iterable[str] = ()) -> None:
    """Raise BadInput where DICOM results (``kinds`` of :data:`KINDS`) cannot be made for this scan."""
    if not scan.frames:
        raise BadInput(f"{scan.source} is not DICOM: DICOM results need DICOM input; leave `dicom` out.")
    placed = bool(scan.frames[0].header.get("FrameOfReferenceUID")) and _has_position(scan)
    # A map's frame of reference and plane positions are not optional (PS3.3, A.75).
    if "pm" in kinds and not placed:
        raise BadInput(
            f"{scan.source} has no place in the patient, which a Parametric Map must have; use `dicom` "
            "seg,sr (or seg-fractional, sc)."
        )
    if len(scan.frames) == 1:
        return
    if not placed:
        raise BadInput(
            f"{scan.source} has no FrameOfReferenceUID or ImagePositionPatient, so DICOM results cannot say "
            "where they lie; leave `dicom` out."
        )
    if scan.frames[0].tile:
        raise BadInput(
            f"{scan.source} is a Siemens mosaic, whose slices DICOM results cannot refer to; "
            "leave `dicom` out."
        )
    files = {frame.path for frame in scan.frames}
    if 1 < len(files) < len(scan.frames):
        raise BadInput(
            f"{scan.source} spreads one volume over {len(files)} multi-frame files, which DICOM results "
            "cannot refer to; leave `dicom` out."
        )


def silenced() -> AbstractContextManager[None]:
    """Silence highdicom and pydicom, which quote patients' names in warnings and logs."""
    return hushed("highdicom", "pydicom")


def _has_position(scan: Scan) -> bool:
    header = scan.frames[0].header
    return "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header


def _source_headers(scan: Scan) -> tuple[list[Dataset], Dataset, tuple[int, ...]]:
    from pydicom.uid import UID

    first = scan.frames[0]
    original = _full_header(first.path)
    missing = [keyword for keyword in NEEDED if not original.get(keyword)]
    if missing or UID(original.SOPClassUID).is_private:
        what = f"has no {missing[0]}" if missing else "is of a private kind"
        raise BadInput(f"{first.path} {what}, so DICOM results cannot refer to it; leave `dicom` out.")
    if int(original.get("NumberOfFrames") or 1) > 1:
        indices = [frame.index for frame in scan.frames]
        return [_usable(_reordered(original, indices), scan)], original, tuple(index + 1 for index in indices)
    headers = [_usable(_full_header(frame.path), scan) for frame in scan.frames]
    for header in headers:
        # Orientations of a series differ in their last digits at times; highdicom wants them equal.
        if "ImageOrientationPatient" in headers[0]:
            header.ImageOrientationPatient = headers[0].ImageOrientationPatient
    return headers, original, ()


def _full_header(path: Path) -> Dataset:
    import pydicom

    try:
        with silenced():
            return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except OSError as error:
        raise BadInput(f"{path} cannot be read any more ({error.strerror}); was it removed?") from error


def _reordered(header: Dataset, indices: list[int]) -> Dataset:
    """Return a multi-frame header with only these frames, in this order, and what they share in its place."""
    header = copy.deepcopy(header)
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups:
        header.PerFrameFunctionalGroupsSequence = [groups[index] for index in indices]
        shared = header.SharedFunctionalGroupsSequence[0]
        for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            if name not in shared and name in groups[indices[0]]:
                setattr(shared, name, groups[indices[0]][name].value)
    header.NumberOfFrames = len(indices)
    return header


def _usable(header: Dataset, scan: Scan) -> Dataset:
    """Return the header with what highdicom insists on."""
    header = copy.deepcopy(header)
    # Empty, whatever they are: highdicom refuses odd dates and quotes odd names. What the source says is put
    # into the results as it stands, in the end.
    for keyword in MAY_BE_EMPTY:
        setattr(header, keyword, "")
    if "SpecificCharacterSet" in header:
        del header.SpecificCharacterSet
    grouped = "PerFrameFunctionalGroupsSequence" in header
    if "FrameOfReferenceUID" in header and ("ImagePositionPatient" in header or grouped):
        measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0] if grouped else header
        if not measures.get("SliceThickness"):
            measures.SliceThickness = _slice_distance(scan)
        return header
    # Radiographs may have a frame of reference, but no place in it; and highdicom does not read again what it
    # wrote of a pixel spacing without slice thickness.
    for keyword in ("FrameOfReferenceUID", "PixelSpacing"):
        if keyword in header:
            delattr(header, keyword)
    return header


def _slice_distance(scan: Scan) -> float:
    first = scan.frames[0]
    if len(scan.frames) == 1:
        return round(first.thickness or 1.0, 6)
    gaps = np.diff([frame.position @ first.normal for frame in scan.frames])
    return round(float(np.median(gaps)), 6)
