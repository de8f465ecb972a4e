"""DICOM Segmentation and Parametric Map: the mask, a segment for each candidate; the map as 8 or 32 bits."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.results.dicom.context import RESEARCH, SCHEME, DicomContext, code, silenced

if TYPE_CHECKING:
    from highdicom.pm import ParametricMap
    from highdicom.seg import Segmentation, SegmentDescription

# Up to this size, images without a suspicious pixel are kept too: a reader gets the whole grid.
WHOLE_GRID_BYTES = 32 * 2**20
CATEGORY = ("49755003", "SCT", "Morphologically Abnormal Structure")
LESION = ("52988006", "SCT", "Lesion")
ARTIFICIAL_INTELLIGENCE = ("123110", "DCM", "Artificial Intelligence")
SCORE = ("anomaly-score", SCHEME, "Anomaly score")
CALCULATION = ("112187", "DCM", "Unspecified method of calculation")
NO_UNITS = ("1", "UCUM", "no units")


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


def parametric_map(context: DicomContext) -> ParametricMap:
    """All images, each value as it is: 0 to 1, 1 most anomalous. They must have a place in the patient."""
    from highdicom.pm import ParametricMap, RealWorldValueMapping

    with silenced():
        mapping = RealWorldValueMapping(
            lut_label="ANOMALY",
            lut_explanation="Anomaly score from 0 to 1; not a probability of disease",
            unit=code(*NO_UNITS),
            value_range=(0.0, 1.0),
            slope=1.0,
            intercept=0.0,
            quantity_definition=code(*SCORE),
        )
        result = ParametricMap(
            context.headers,
            context.frames.anomaly_map,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            content_label=RESEARCH,
            content_description="Anomaly map; not for diagnosis",
            content_qualification=RESEARCH,
            coding_schemes=coding_schemes(),
            **_window(ParametricMap),
            **context.names("pm", "anomaly map"),
        )
        context.finish(result)
        _refer_to_images(context, result)
        return result


def _refer_to_images(context: DicomContext, result: ParametricMap) -> None:
    """Each plane refers to the image at its place; highdicom before 0.28 does not say so."""
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

    positions = np.array([frame.position for frame in context.frames.frames])
    for group in result.PerFrameFunctionalGroupsSequence:
        if group.get("DerivationImageSequence"):
            continue
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        index = int(np.linalg.norm(positions - place, axis=1).argmin())
        derivation = Dataset()
        derivation.DerivationCodeSequence = [CodedConcept(*CALCULATION)]
        derivation.SourceImageSequence = [context.reference(index)]
        group.DerivationImageSequence = [derivation]


def coding_schemes() -> list[Any]:
    """Return what the codes of ours belong to."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    ours: dict[str, Any] = {"name": "Codes of medzsad", "responsible_organization": "medzsad"}
    return [CodingSchemeIdentificationItem(SCHEME, **ours)]


def _window(constructor: type) -> dict[str, Any]:
    """Shown from 0 to 1; older versions of highdicom have no transformations, but two arguments."""
    if "voi_lut_transformations" not in inspect.signature(constructor).parameters:
        return {"window_center": 0.5, "window_width": 1.0}
    from highdicom import VOILUTTransformation

    return {"voi_lut_transformations": [VOILUTTransformation(window_center=0.5, window_width=1.0)]}
