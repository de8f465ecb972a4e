"""Frames: the slices that DICOM files hold, each with its own place in the patient.

A classic file holds one frame, an enhanced multi-frame file holds many, with their geometry in functional
groups. Both become the same record, so that sorting and checking a series need not know which it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.errors import BadInput
from medzsad.limits import check_volume
from medzsad.scans.sanity import FARTHEST_MM, LARGEST_VALUE, SMALLEST_MM

if TYPE_CHECKING:
    from pydicom import Dataset

# What tells volumes at the same positions apart, in the order it is tried.
VOLUME_KEYS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime", "EffectiveEchoTime",
    "DiffusionBValue", "TriggerTime", "AcquisitionNumber", "ImageType", "AcquisitionTime", "ContentTime",
)  # fmt: skip


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
        number: ``InstanceNumber``.
        slope, intercept: the rescale of this frame.
        is_scout: whether its image type says LOCALIZER.
        keys: values of :data:`VOLUME_KEYS`.
        header: the file's header.
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
    number: int
    slope: float
    intercept: float
    is_scout: bool
    keys: dict[str, Any] = field(repr=False)
    header: Dataset = field(repr=False)

    def __post_init__(self) -> None:
        numbers = [*(self.position if self.position is not None else ()), *(self.spacing or ())]
        numbers += [self.thickness or 0, self.location or 0]
        too_small = self.spacing is not None and min(self.spacing) < SMALLEST_MM
        if max(map(abs, numbers)) > FARTHEST_MM or too_small:
            raise BadInput(f"{self.path} has a position or spacing that cannot be; correct its header.")
        if max(abs(self.slope), abs(self.intercept)) > LARGEST_VALUE:
            raise BadInput(
                f"{self.path} has a rescale slope or intercept that cannot be; correct its header."
            )

    @property
    def has_place(self) -> bool:
        """Whether position and orientation are known."""
        return self.position is not None and self.axes is not None

    @property
    def normal(self) -> np.ndarray:
        """Unit vector that the slices are stacked along, LPS."""
        return np.cross(*self.axes)


def frames_of(header: Dataset, path: Path) -> list[Frame]:
    """The frames of one file.

    Raises:
        BadInput: numbers that cannot be, such as a negative pixel spacing or skewed axes.
    """
    count = max(1, _integer(header.get("NumberOfFrames"), 1))
    check_volume(path, int(header.Rows), int(header.Columns), count, packed=True)
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    return [
        _frame(header, path, index, [per_frame[index] if index < len(per_frame) else None, shared], count > 1)
        for index in range(count)
    ]


def _frame(header: Dataset, path: Path, index: int, groups: list[Dataset | None], many: bool) -> Frame:
    def look_up(sequence: str, name: str) -> Any:
        for group in groups:
            item = _first(group.get(sequence)) if group is not None else None
            if item is not None and item.get(name) is not None:
                return item.get(name)
        # A classic multi-frame file has one position at most, which cannot be that of every frame.
        return None if many and name == "ImagePositionPatient" else header.get(name)

    axes = _axes(look_up("PlaneOrientationSequence", "ImageOrientationPatient"), path)
    spacing, source = _spacing(header, look_up("PixelMeasuresSequence", "PixelSpacing"), path)
    between = _number(look_up("PixelMeasuresSequence", "SpacingBetweenSlices"))
    thickness = between or _number(look_up("PixelMeasuresSequence", "SliceThickness"))
    keys = {name: header.get(name) for name in VOLUME_KEYS}
    keys["TemporalPositionIndex"] = look_up("FrameContentSequence", "TemporalPositionIndex")
    keys["EffectiveEchoTime"] = look_up("MREchoSequence", "EffectiveEchoTime")
    keys["DiffusionBValue"] = look_up("MRDiffusionSequence", "DiffusionBValue")
    image_type = [str(part).upper() for part in header.get("ImageType") or []]
    slope = _number(look_up("PixelValueTransformationSequence", "RescaleSlope"))
    return Frame(
        path=path,
        index=index,
        rows=int(header.Rows),
        columns=int(header.Columns),
        samples=_integer(header.get("SamplesPerPixel"), 1),
        position=_vector(look_up("PlanePositionSequence", "ImagePositionPatient"), 3),
        axes=axes,
        spacing=spacing,
        spacing_source=source,
        thickness=abs(thickness) if thickness else None,
        location=_number(header.get("SliceLocation")),
        number=_integer(header.get("InstanceNumber"), 0),
        slope=1.0 if slope is None or slope == 0 else slope,
        intercept=_number(look_up("PixelValueTransformationSequence", "RescaleIntercept")) or 0.0,
        is_scout="LOCALIZER" in image_type or "SCOUT" in image_type,
        keys={name: _plain(value) for name, value in keys.items()},
        header=header,
    )


def _axes(values: Any, path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Unit vectors along the columns' and the rows' index, exactly perpendicular."""
    cosines = _vector(values, 6)
    if cosines is None:
        return None
    along_columns, along_rows = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(along_columns), np.linalg.norm(along_rows)
    if min(lengths) < 0.5 or abs(along_columns @ along_rows) > 0.01 * lengths[0] * lengths[1]:
        raise BadInput(
            f"{path} has an ImageOrientationPatient that is no pair of perpendicular axes; export it again."
        )
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
                raise BadInput(f"{path} has a {name} that is not positive; correct its header.")
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
    """A value that can be compared and sorted."""
    if value is None or value == "":
        return None
    number = _number(value)
    return number if number is not None else str(value)
