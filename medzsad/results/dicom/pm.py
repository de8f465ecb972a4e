"""DICOM Parametric Map: the anomaly map as 32-bit floats."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.results.dicom.context import RESEARCH, SCHEME, DicomContext, code, silenced

if TYPE_CHECKING:
    from highdicom.pm import ParametricMap

SCORE = ("anomaly-score", SCHEME, "Anomaly score")
CALCULATION = ("112187", "DCM", "Unspecified method of calculation")
NO_UNITS = ("1", "UCUM", "no units")


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
