"""DICOM Secondary Capture: the map drawn over each acquired image, for viewers that show nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from medzsad.results.dicom.context import RESEARCH, DicomContext, silenced
from medzsad.results.montage import AMBER, OUTLINE, as_bytes, blend
from medzsad.scans.dicom.pixels import PixelReader

if TYPE_CHECKING:
    from pydicom import Dataset

    from medzsad.scans.dicom.frames import Frame

NOTICE = f"{RESEARCH} - not for diagnosis"
# The notice, as part of the picture's width.
NOTICE_WIDTH = 0.35


def secondary_captures(context: DicomContext) -> Iterator[Dataset]:
    """One RGB image for each acquired one, in their order along the stack, of the same size and place."""
    from highdicom.sc import SCImage

    scan = context.prediction.scan
    names = context.names("sc", "overlay")
    for index, frame in enumerate(context.frames.frames):
        header = context.headers[0 if context.frame_numbers else index]
        orientation = "".join(_orientation(axis) for axis in frame.axes) if frame.axes else ""
        names |= {"sop_instance_uid": context.instance_uid("sc", index), "instance_number": index + 1}
        with silenced():
            result: Dataset = SCImage.from_ref_dataset(
                header,
                picture(context, index),
                photometric_interpretation="RGB",
                bits_allocated=8,
                coordinate_system="PATIENT",
                patient_orientation=(orientation[0], orientation[1]) if orientation else ("L", "F"),
                pixel_spacing=_spacing(frame) if scan.has_geometry else None,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                **names,
            )
            if not orientation:
                result.PatientOrientation = context.original.get("PatientOrientation") or ""
            result.ImageType = ["DERIVED", "SECONDARY"]
            result.BurnedInAnnotation = "NO"  # the notice names nobody
            result.DerivationDescription = f"medzsad anomaly map over the image; {NOTICE}"
            result.SourceImageSequence = [context.reference(index)]
            # Not of this kind of object, but viewers scroll by it.
            if frame.position is not None and frame.axes and context.placed:
                result.FrameOfReferenceUID = header.FrameOfReferenceUID
                result.ImagePositionPatient = [round(float(value), 6) for value in frame.position]
                cosines = np.concatenate(frame.axes)
                result.ImageOrientationPatient = [round(float(value), 6) for value in cosines]
                if frame.thickness:
                    result.SliceThickness = round(frame.thickness, 6)
            yield context.finish(result)


def picture(context: DicomContext, index: int) -> np.ndarray:
    """Return an acquired image under its map, uint8 (rows, columns, 3).

    The mask is outlined, each candidate has its number of the report, a bar at the right edge explains the
    map's colours (from 0 to 1, with the threshold), and the notice stands above.
    """
    prediction, frames = context.prediction, context.frames
    scan = prediction.scan
    if frames.resampled:
        values = PixelReader(scan.modality)(frames.frames[index])
    else:
        values = np.ascontiguousarray(scan.voxels[:, :, index].swapaxes(0, 1))
    channels = np.nan_to_num(prediction.scaling(values))
    # As in the overlay: a grey scan's channels are equal, or windows of which the first is the one to read.
    channels = channels if scan.is_colour else np.broadcast_to(channels[:1], channels.shape)
    drawn = blend(np.moveaxis(channels, 0, -1), frames.anomaly_map[index])
    inside = frames.mask[index]
    drawn[inside & ~_eroded(inside)] = np.array(OUTLINE) / 255
    return _labelled(as_bytes(drawn), frames.labels[index], len(frames.candidates), prediction.threshold)


def _spacing(frame: Frame) -> tuple[int, int] | None:
    """Mm between rows and between columns; highdicom's types say whole numbers, its code does not."""
    return cast("tuple[int, int]", frame.spacing[::-1]) if frame.spacing else None


def _orientation(axis: np.ndarray) -> str:
    """Return the side of the patient that an axis (LPS) points to most."""
    largest = int(np.abs(axis).argmax())
    return ("LPH" if axis[largest] > 0 else "RAF")[largest]


def _eroded(inside: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.binary_erosion(inside, border_value=1)


def _labelled(image: np.ndarray, labels: np.ndarray, candidates: int, threshold: float) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    height, width = labels.shape
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    size = max(8, round(NOTICE_WIDTH * width / (0.55 * len(NOTICE))))
    font = ImageFont.load_default(size)
    style: dict[str, Any] = {"font": font, "stroke_width": 1, "stroke_fill": (0, 0, 0)}
    draw.text((4, 3), NOTICE, fill=AMBER, **style)
    bar = max(3, width // 60)
    left, top, length = width - bar - 3, height // 4, height // 2
    ramp = np.linspace(1, 0, length, dtype=np.float32)[:, None].repeat(bar, axis=1)
    canvas.paste(
        Image.fromarray(as_bytes(blend(np.full((length, bar, 3), 0.3, np.float32), ramp))), (left, top)
    )
    draw.rectangle((left - 1, top - 1, left + bar, top + length), outline=(156, 160, 166))
    at = top + round((1 - min(max(threshold, 0.0), 1.0)) * (length - 1))
    draw.line((left - 3, at, left + bar, at), fill=OUTLINE)
    for text, y, colour in (("1", top, AMBER), ("0", top + length, AMBER), (f"{threshold:.2g}", at, OUTLINE)):
        draw.text((left - 4, y), text, fill=colour, anchor="rm", **style)
    for number in np.unique(labels[(labels > 0) & (labels <= candidates)]).tolist():
        rows, columns = np.nonzero(labels == number)
        first = rows.argmin()
        place = (min(int(columns[first]) + 2, width - size), max(int(rows[first]) - 2, 2 * size + 4))
        draw.text(place, str(number), fill=OUTLINE, anchor="ls", **style)
    return np.asarray(canvas)
