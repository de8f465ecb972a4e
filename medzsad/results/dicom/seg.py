"""DICOM Segmentation: the mask, a segment for each lesion candidate; or the map as probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.results.dicom.context import RESEARCH, DicomContext, code, silenced

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

# Up to this size, images without a suspicious pixel are kept too: a reader gets the whole grid.
WHOLE_GRID_BYTES = 32 * 2**20
CATEGORY = ("49755003", "SCT", "Morphologically Abnormal Structure")
LESION = ("52988006", "SCT", "Lesion")
ARTIFICIAL_INTELLIGENCE = ("123110", "DCM", "Artificial Intelligence")


def binary_segmentation(context: DicomContext) -> Segmentation:
    """Return the mask (BINARY): segments 1 to N are the lesion candidates in the order of the report.

    What else is in the mask (specks too small to be listed, and candidates beyond the fiftieth) is one more
    segment. An empty mask is one empty segment. The union of all segments is the mask.
    """
    frames = context.frames
    count = len(frames.candidates)
    descriptions = [
        _description(
            context,
            number,
            f"Lesion candidate {number}",
            tracking=(f"candidate {number}", context.tracking_uid(number)),
        )
        for number in range(1, count + 1)
    ]
    if frames.has_others:
        descriptions.append(_description(context, count + 1, "Other suspicious voxels"))
    if not descriptions:
        descriptions = [_description(context, 1, "Nothing above the threshold")]
    omit = len(descriptions) * frames.labels.size // 8 > WHOLE_GRID_BYTES
    return _segmentation(
        context,
        "seg",
        "suspicious regions",
        frames.labels,
        descriptions,
        segmentation_type="BINARY",
        omit_empty_frames=omit,
    )


def fractional_segmentation(context: DicomContext) -> Segmentation:
    """Return the map (FRACTIONAL, PROBABILITY): one segment, all images, 0 to 255 for 0 to 1."""
    return _segmentation(
        context,
        "seg-fractional",
        "anomaly map",
        context.frames.anomaly_map.clip(0, 1),
        [_description(context, 1, "Anomaly")],
        segmentation_type="FRACTIONAL",
        fractional_type="PROBABILITY",
        max_fractional_value=255,
        omit_empty_frames=False,
    )


def _segmentation(
    context: DicomContext,
    kind: str,
    description: str,
    pixels: np.ndarray,
    descriptions: list[SegmentDescription],
    **options: Any,
) -> Segmentation:
    from highdicom.seg import Segmentation

    with silenced():
        result = Segmentation(
            context.headers,
            pixels,
            segment_descriptions=descriptions,
            content_label=RESEARCH,
            content_description=f"{description}; not for diagnosis".capitalize(),
            **context.names(kind, description),
            **options,
        )
        return context.finish(result)


def _description(
    context: DicomContext, number: int, label: str, tracking: tuple[str, str] | None = None
) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription

    from medzsad import __version__

    parameters = {key: value.replace(",", ";") for key, value in context.parameters.items()}
    algorithm = AlgorithmIdentificationSequence(
        name="medzsad",
        family=code(*ARTIFICIAL_INTELLIGENCE),
        version=__version__,
        source="medzsad",
        parameters=parameters,
    )
    region = context.region()
    return SegmentDescription(
        number,
        label,
        code(*CATEGORY),
        code(*LESION),
        "AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_id=tracking[0] if tracking else None,
        tracking_uid=tracking[1] if tracking else None,
        anatomic_regions=[region] if region else None,
    )
