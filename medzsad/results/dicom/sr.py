"""DICOM Structured Report: the lesion candidates as a TID 1500 measurement report."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.results.dicom.context import SCHEME, DicomContext, code, silenced
from medzsad.results.dicom.images import (
    ARTIFICIAL_INTELLIGENCE,
    CATEGORY,
    LESION,
    NO_UNITS,
    SCORE,
    coding_schemes,
)
from medzsad.results.lesions import Lesion
from medzsad.scans.affines import LPS_TO_RAS

if TYPE_CHECKING:
    from highdicom.sr import Comprehensive3DSR
    from pydicom import Dataset

VOLUME = ("118565006", "SCT", "Volume")
AREA = ("42798000", "SCT", "Area")
MAXIMUM = ("56851009", "SCT", "Maximum")
MEAN = ("373098007", "SCT", "Mean")
# DICOM's patient axes (LPS), in its frame of reference.
PATIENT_AXES = (
    ("center-x", SCHEME, "Center of mass, x (to the left)"),
    ("center-y", SCHEME, "Center of mass, y (to the back)"),
    ("center-z", SCHEME, "Center of mass, z (to the head)"),
)
IMAGE_AXES = (
    ("center-column", SCHEME, "Center of mass, column (from 0)"),
    ("center-row", SCHEME, "Center of mass, row (from 0)"),
)
# Of a ring or a crescent the centre of mass lies outside: the highest value is the place to look at.
PATIENT_PEAK = (
    ("peak-x", SCHEME, "Highest value, x (to the left)"),
    ("peak-y", SCHEME, "Highest value, y (to the back)"),
    ("peak-z", SCHEME, "Highest value, z (to the head)"),
)
IMAGE_PEAK = (
    ("peak-column", SCHEME, "Highest value, column (from 0)"),
    ("peak-row", SCHEME, "Highest value, row (from 0)"),
)
RANK = ("candidate-score", SCHEME, "Candidate score")
COUNT = ("candidates", SCHEME, "Number of lesion candidates")
PURPOSE = ("purpose", SCHEME, "Purpose of the result")
RESEARCH_USE = ("research-use", SCHEME, "Research use only, not for diagnosis")
PROCEDURES = {
    "CT": ("25045-6", "LN", "CT unspecified body region"),
    "MR": ("25056-3", "LN", "MRI unspecified body region"),
}
IMAGING = ("363679005", "SCT", "Imaging procedure")


def measurement_report(context: DicomContext, segmentation: Dataset) -> Comprehensive3DSR:
    """Return the report: first the scan as a whole, then each lesion candidate that has a segment of its own.

    Args:
        context: what is reported.
        segmentation: :func:`~medzsad.results.dicom.images.binary_segmentation` of the same context, to whose
            segments the candidates refer.
    """
    from highdicom import sr

    with silenced():
        observer = sr.ObserverContext(
            observer_type=sr.CodedConcept("121007", "DCM", "Device"),
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=context.series_uid("device"),
                name="medzsad",
                manufacturer_name="medzsad",
                model_name=context.parameters["model"],
            ),
        )
        modality = str(context.original.get("Modality") or "")
        lesions = [
            _lesion_group(context, segmentation, number, lesion)
            for number, lesion in enumerate(context.frames.candidates, start=1)
        ]
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=observer),
            procedure_reported=code(*PROCEDURES.get(modality, IMAGING)),
            imaging_measurements=[_scan_group(context), *lesions],
        )
        report = sr.Comprehensive3DSR(
            evidence=[*context.headers, segmentation],
            content=content[0],
            coding_schemes=coding_schemes(),
            is_complete=True,
            is_final=False,
            is_verified=False,
            **context.names("sr", "lesion candidates"),
        )
        return context.finish(report, image=False)


def _scan_group(context: DicomContext) -> Any:
    """TID 1501: score of the scan, number of candidates, and what the report is for."""
    from highdicom import sr

    prediction = context.prediction
    measurements = [
        sr.Measurement(code(*SCORE), prediction.score, code(*NO_UNITS)),
        sr.Measurement(code(*COUNT), len(prediction.lesions), code(*NO_UNITS)),
    ]
    return sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(context.tracking_uid(0), "scan"),
        algorithm_id=_algorithm(context),
        finding_sites=_sites(context),
        measurements=measurements,
        qualitative_evaluations=[sr.QualitativeEvaluation(code(*PURPOSE), code(*RESEARCH_USE))],
    )


def _lesion_group(context: DicomContext, segmentation: Dataset, number: int, lesion: Lesion) -> Any:
    """TID 1411: a candidate's segment, its size, where its centre is, and its scores."""
    from highdicom import sr

    segment = sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=number,
        source_series=sr.SourceSeriesForSegmentation(context.headers[0].SeriesInstanceUID),
    )
    scores = [
        sr.Measurement(code(*SCORE), value, code(*NO_UNITS), derivation=code(*how))
        for value, how in ((lesion.maximum, MAXIMUM), (lesion.mean, MEAN))
    ]
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(context.tracking_uid(number), f"candidate {number}"),
        referenced_segment=segment,
        finding_type=code(*LESION),
        finding_category=code(*CATEGORY),
        algorithm_id=_algorithm(context),
        finding_sites=_sites(context),
        measurements=[
            *_size_and_place(context, lesion),
            *scores,
            sr.Measurement(code(*RANK), lesion.score, code(*NO_UNITS)),
        ],
    )


def _size_and_place(context: DicomContext, lesion: Lesion) -> list[Any]:
    """Volume, centre of mass and peak in the patient; in pixels where the image has no place in the patient.

    TID 1411 lets no measurement carry coordinates: its region is the segment. So each place is three numbers.
    """
    from highdicom import sr

    names: tuple[tuple[str, str, str], ...]
    if context.placed and lesion.volume_ml is not None:
        size = sr.Measurement(code(*VOLUME), lesion.volume_ml, code("mL", "UCUM", "mL"))
        unit = code("mm", "UCUM", "millimeter")
        places = [LPS_TO_RAS[:3, :3] @ np.array(place) for place in (lesion.center_mm, lesion.peak_mm)]
        names = (*PATIENT_AXES, *PATIENT_PEAK)
    else:
        unit = code("{pixels}", "UCUM", "pixels")
        size = sr.Measurement(code(*AREA), lesion.voxels, unit)
        places = [np.array(place[:2]) for place in (lesion.center_voxel, lesion.peak_voxel)]
        names = (*IMAGE_AXES, *IMAGE_PEAK)
    return [
        size,
        *(
            sr.Measurement(code(*name), round(float(value), 3), unit)
            for name, value in zip(names, np.concatenate(places), strict=True)
        ),
    ]


def _algorithm(context: DicomContext) -> Any:
    from highdicom import sr

    from medzsad import __version__

    parameters = [f"{key}={value}" for key, value in context.parameters.items()]
    known = inspect.signature(sr.AlgorithmIdentification).parameters
    # Older versions of highdicom do not know an algorithm's family here.
    family: dict[str, Any] = {"family": code(*ARTIFICIAL_INTELLIGENCE)} if "family" in known else {}
    return sr.AlgorithmIdentification("medzsad", __version__, parameters, **family)


def _sites(context: DicomContext) -> list[Any] | None:
    from highdicom import sr

    region = context.region()
    return [sr.FindingSite(region)] if region else None
