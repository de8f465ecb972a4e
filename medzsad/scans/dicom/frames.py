"""Frames: the slices that DICOM files hold, each with its own place in the patient.

A classic file holds one frame, an enhanced multi-frame file holds many, with their geometry in functional
groups. Both become the same record, so that sorting and checking a series need not know which it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.errors import certain
from medzsad.limits import check_volume
from medzsad.scans.affines import FARTHEST_MM, SMALLEST_MM
from medzsad.scans.dicom.files import (
    B_VALUE_TAGS,
    SeriesKey,
    UnusableFile,
    is_whole_slide,
    series_key,
    unusable,
)
from medzsad.scans.scan import LARGEST_VALUE

if TYPE_CHECKING:
    from pydicom import Dataset

# What tells volumes apart, in the order it is tried, and the functional groups that it lies in where it is
# not at the top of the header.
VOLUME_KEYS: dict[str, tuple[str, ...]] = {
    "StackID": ("FrameContentSequence",),
    "TemporalPositionIdentifier": (),
    "TemporalPositionIndex": ("FrameContentSequence",),
    "EchoNumbers": (),
    "EchoTime": (),
    "EffectiveEchoTime": ("MREchoSequence",),
    "InversionTime": (),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence",),
    "DiffusionBValue": ("MRDiffusionSequence",),
    "DiffusionGradientOrientation": ("MRDiffusionSequence", "DiffusionGradientDirectionSequence"),
    "NominalCardiacTriggerDelayTime": ("CardiacSynchronizationSequence",),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence",),
    "TriggerTime": (),
    "FrameReferenceTime": (),
    "EnergyWindowVector": (),
    "RRIntervalVector": (),
    "TimeSlotVector": (),
    "PhaseVector": (),
    "TimeSliceVector": (),
    "KVP": (),
    "ConvolutionKernel": (),
    "ComplexImageComponent": ("MRImageFrameTypeSequence",),
    "FrameType": ("MRImageFrameTypeSequence",),
    "ImageType": (),
    "FrameOfReferenceUID": (),
    "AcquisitionNumber": (),
    "FrameAcquisitionNumber": ("FrameContentSequence",),
    "ConcatenationUID": (),
    "AcquisitionTime": (),
    "ContentTime": (),
}
NM_CLASS = "1.2.840.10008.5.1.4.1.1.20"


@dataclass(frozen=True)
class Frame:
    """One slice or image.

    Attributes:
        path: the file that holds it.
        index: which frame of the file.
        rows, columns: size in pixels.
        samples: 1 for grey, 3 for colour.
        position: (3,) LPS mm of the first pixel's centre, or None.
        axes: unit vectors along the columns' and the rows' index (LPS), or None.
        spacing: mm between columns and between rows, or None.
        spacing_source: the DICOM attribute that the spacing is from.
        thickness: mm to the next slice as the header claims it, or None.
        location: ``SliceLocation``, or None.
        number: ``InstanceNumber``, or None.
        slope, intercept: the rescale of this frame.
        is_scout: whether its image type says LOCALIZER.
        keys: values of :data:`VOLUME_KEYS`, None where there is none.
        header: the file's header.
        tile: row and column of the first pixel within the file's image, where slices lie side by side in it.
    """

    path: Path
    index: int
    rows: int
    columns: int
    samples: int
    position: np.ndarray | None
    axes: tuple[np.ndarray, np.ndarray] | None
    spacing: tuple[float, float] | None
    spacing_source: str
    thickness: float | None
    location: float | None
    number: int | None
    slope: float
    intercept: float
    is_scout: bool
    keys: dict[str, Any] = field(repr=False)
    header: Dataset = field(repr=False)
    tile: tuple[int, int] | None = None

    @property
    def series(self) -> SeriesKey:
        """What tells its series from others."""
        return getattr(self.header, "series_key", None) or series_key(self.header, self.path)

    def __post_init__(self) -> None:
        numbers = [*(self.position if self.position is not None else ()), *(self.spacing or ())]
        numbers += [self.thickness or 0, self.location or 0]
        too_small = self.spacing is not None and min(self.spacing) < SMALLEST_MM
        if max(map(abs, numbers)) > FARTHEST_MM or too_small:
            raise UnusableFile(self.path, "a position or spacing that cannot be")
        if max(abs(self.slope), abs(self.intercept)) > LARGEST_VALUE:
            raise UnusableFile(self.path, "a rescale slope or intercept that cannot be")

    @property
    def has_place(self) -> bool:
        """Whether position and orientation are known."""
        return self.position is not None and self.axes is not None

    @property
    def normal(self) -> np.ndarray:
        """Unit vector that the slices are stacked along, LPS."""
        return np.cross(*certain(self.axes))


def frames_of(header: Dataset, path: Path) -> list[Frame]:
    """Return the frames of one file.

    Raises:
        UnusableFile: numbers that cannot be, such as a negative pixel spacing or skewed axes; or a kind of
            image that cannot be read as slices: tiles of a whole slide, projections of a tomogram, a mosaic
            that does not say how many slices it holds.
    """
    count = max(1, _integer(header.get("NumberOfFrames"), 1))
    with unusable(path, "more pixels than may be decoded"):
        check_volume(path, int(header.Rows), int(header.Columns), count, packed=True)
    image_type = [str(part).upper() for part in header.get("ImageType") or []]
    if is_whole_slide(header) and (count > 1 or _is_part_of_matrix(header)):
        tiles = f"cut into {count} tiles" if count > 1 else "of which it is one tile"
        raise UnusableFile(
            path,
            f"a whole-slide image {tiles} (microscopy), which is not read",
            "export the region of interest as PNG or TIFF",
        )
    if _is_nuclear(header):
        return _nuclear_frames(header, path, count, image_type)
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    frames = [
        _frame(header, path, index, [per_frame[index] if index < len(per_frame) else None, shared], count > 1)
        for index in range(count)
    ]
    if count == 1:
        from medzsad.scans.dicom.mosaics import is_mosaic, tiles_of

        if is_mosaic(header, path):
            return tiles_of(frames[0])
    return frames


def _frame(header: Dataset, path: Path, index: int, groups: list[Dataset | None], many: bool) -> Frame:
    def look_up(name: str, *sequences: str) -> Any:
        for group in groups:
            item = group
            for sequence in sequences:
                item = _first(item.get(sequence)) if item is not None else None
            if sequences and item is not None and item.get(name) is not None:
                return item.get(name)
        # A classic multi-frame file has one position at most, which cannot be that of every frame.
        return None if many and name == "ImagePositionPatient" else header.get(name)

    axes = _axes(look_up("ImageOrientationPatient", "PlaneOrientationSequence"), path)
    spacing, source = _spacing(header, look_up("PixelSpacing", "PixelMeasuresSequence"), path)
    between = _number(look_up("SpacingBetweenSlices", "PixelMeasuresSequence"))
    thickness = between or _number(look_up("SliceThickness", "PixelMeasuresSequence"))
    keys = {name: look_up(name, *sequences) for name, sequences in VOLUME_KEYS.items()}
    if keys["DiffusionBValue"] is None:
        keys["DiffusionBValue"] = _private_b_value(header)
    image_type = [str(part).upper() for part in header.get("ImageType") or []]
    slope = _number(look_up("RescaleSlope", "PixelValueTransformationSequence"))
    number = _number(header.get("InstanceNumber"))
    return Frame(
        path=path,
        index=index,
        rows=int(header.Rows),
        columns=int(header.Columns),
        samples=_integer(header.get("SamplesPerPixel"), 1),
        position=_vector(look_up("ImagePositionPatient", "PlanePositionSequence"), 3),
        axes=axes,
        spacing=spacing,
        spacing_source=source,
        thickness=abs(thickness) if thickness else None,
        location=_number(header.get("SliceLocation")),
        number=None if number is None else int(number),
        slope=1.0 if slope is None or slope == 0 else slope,
        intercept=_number(look_up("RescaleIntercept", "PixelValueTransformationSequence")) or 0.0,
        is_scout="LOCALIZER" in image_type or "SCOUT" in image_type,
        keys={name: _plain(value) for name, value in keys.items()},
        header=header,
    )


def _is_part_of_matrix(header: Dataset) -> bool:
    sides = (("TotalPixelMatrixColumns", "Columns"), ("TotalPixelMatrixRows", "Rows"))
    return any(_integer(header.get(whole), 0) > int(header.get(part)) for whole, part in sides)


def _is_nuclear(header: Dataset) -> bool:
    return header.get("SOPClassUID") == NM_CLASS and bool(header.get("DetectorInformationSequence"))


def _nuclear_frames(header: Dataset, path: Path, count: int, image_type: list[str]) -> list[Frame]:
    """Nuclear medicine: one position for all, at the detector, and a vector for all that frames differ in.

    Raises:
        UnusableFile: projections, of which a tomogram is still to be computed.
    """
    kind = image_type[2] if len(image_type) > 2 else ""
    if count > 1 and "TOMO" in kind and "RECON" not in kind:
        raise UnusableFile(
            path, f"{count} projections of a SPECT ({kind}), no slices", "give the reconstructed series"
        )
    detector = header.DetectorInformationSequence[0]
    first = _frame(header, path, 0, [None, None], count > 1)
    axes = _axes(detector.get("ImageOrientationPatient"), path) or first.axes
    corner = _vector(detector.get("ImagePositionPatient"), 3)
    corner = first.position if corner is None else corner
    # Its sign says on which side of the first slice the others lie (PS3.3, C.8.4.15).
    step = _number(header.get("SpacingBetweenSlices")) or first.thickness
    order = _per_frame(header, "SliceVector", count) or [float(index + 1) for index in range(count)]
    placed = count == 1 or "RECON" in kind
    vectors = {name: _per_frame(header, name, count) for name in VOLUME_KEYS if name.endswith("Vector")}

    def place(index: int) -> np.ndarray | None:
        if not placed or axes is None or corner is None or not step:
            return None
        return corner + (order[index] - 1) * step * np.cross(*axes)

    return [
        replace(
            first,
            index=index,
            axes=axes,
            position=place(index),
            keys=first.keys | {name: vector and vector[index] for name, vector in vectors.items()},
        )
        for index in range(count)
    ]


def _per_frame(header: Dataset, name: str, count: int) -> list[float] | None:
    """Return a vector with a number for each frame."""
    values = header.get(name)
    if count == 1 and _number(values) is not None:
        return [float(values)]
    vector = _vector(values, count)
    return None if vector is None else vector.tolist()


def _private_b_value(header: Dataset) -> float | None:
    for tag in B_VALUE_TAGS:
        if tag in header:
            value = header[tag].value
            # GE adds flags above 10^6 to the first of several numbers.
            number = _number(
                value[0]
                if isinstance(value, Sequence) and not isinstance(value, str | bytes) and value
                else value
            )
            return None if number is None else number % 1e6
    return None


def _axes(values: Any, path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return unit vectors along the columns' and the rows' index, exactly perpendicular."""
    cosines = _vector(values, 6)
    if cosines is None:
        return None
    along_columns, along_rows = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(along_columns), np.linalg.norm(along_rows)
    if min(lengths) < 0.5 or abs(along_columns @ along_rows) > 0.01 * lengths[0] * lengths[1]:
        raise UnusableFile(path, "an ImageOrientationPatient that is no pair of perpendicular axes")
    along_columns = along_columns / lengths[0]
    along_rows = along_rows - (along_rows @ along_columns) * along_columns  # headers round to a few digits
    return along_columns, along_rows / np.linalg.norm(along_rows)


def _spacing(header: Dataset, measured: Any, path: Path) -> tuple[tuple[float, float] | None, str]:
    """(between columns, between rows) in mm and the attribute it is from; DICOM lists rows first."""
    candidates = {
        "PixelSpacing": measured,
        "ImagerPixelSpacing": header.get("ImagerPixelSpacing"),
        "NominalScannedPixelSpacing": header.get("NominalScannedPixelSpacing"),
    }
    for name, values in candidates.items():
        pair = _vector(values, 2)
        if pair is not None:
            if min(pair) <= 0:
                raise UnusableFile(path, f"a {name} that is not positive")
            return (float(pair[1]), float(pair[0])), name
    region = _first(header.get("SequenceOfUltrasoundRegions"))
    # Unit code 3 is centimetres (PS3.3, C.8.5.5); other regions are spectra or time axes.
    if region is not None and region.get("PhysicalUnitsXDirection") == 3 == region.get(
        "PhysicalUnitsYDirection"
    ):
        x, y = _number(region.get("PhysicalDeltaX")), _number(region.get("PhysicalDeltaY"))
        if x and y:
            return (abs(x) * 10, abs(y) * 10), "SequenceOfUltrasoundRegions"
    return None, ""


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _integer(value: Any, default: int) -> int:
    number = _number(value)
    return default if number is None else int(number)


def _vector(values: Any, length: int) -> np.ndarray | None:
    try:
        vector = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        return None
    return vector if len(vector) == length and np.isfinite(vector).all() else None


def _plain(value: Any) -> Any:
    """Return a value that can be compared and sorted."""
    if value is None or value == "":
        return None
    number = _number(value)
    return number if number is not None else str(value)
