"""DICOM Structured Reports, parsed with highdicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_factory import write
from dicom_results import IDENTITY, new_errors, pixels, predicted, regular_series, tilted_series

from medzsad.results.prediction import ScanPrediction

highdicom = pytest.importorskip("highdicom")


def saved(prediction: ScanPrediction, out: Path) -> dict[str, Path]:
    return prediction.save(out, formats=("dicom-sr",))


def content(path: Path) -> Any:
    return highdicom.sr.srread(path).content


def values(group: Any) -> dict[str, float]:
    """Measurements by name, with how they were derived."""
    found = {}
    for one in group.get_measurements():
        derivation = f" {one.derivation.meaning}" if one.derivation else ""
        found[f"{one.name.meaning}{derivation}"] = one.value
    return found


@pytest.mark.parametrize("make", [regular_series, tilted_series])
def test_candidates_have_size_place_and_scores(tmp_path, make):
    prediction = predicted(make(tmp_path / "source"))
    files = saved(prediction, tmp_path)
    assert set(files) == {"dicom-seg", "dicom-sr"}  # the report refers to the segments
    segmentation = pydicom.dcmread(files["dicom-seg"])
    groups = content(files["dicom-sr"]).get_volumetric_roi_measurement_groups()
    assert len(groups) == len(prediction.lesions) >= 2
    for number, (group, lesion) in enumerate(zip(groups, prediction.lesions, strict=True), start=1):
        measured = values(group)
        assert measured["Volume"] == pytest.approx(lesion.volume_ml, rel=1e-6)
        assert measured["Anomaly score Maximum"] == pytest.approx(lesion.maximum, rel=1e-6)
        assert measured["Anomaly score Mean"] == pytest.approx(lesion.mean, rel=1e-6)
        assert measured["Candidate score"] == pytest.approx(lesion.score, rel=1e-6)
        centre = [value for name, value in measured.items() if name.startswith("Center of mass")]
        x, y, z = lesion.center_mm
        np.testing.assert_allclose(centre, (-x, -y, z), atol=1e-3)  # RAS to LPS
        assert group.tracking_identifier == f"candidate {number}"
        assert group.tracking_uid == segmentation.SegmentSequence[number - 1].TrackingUID
        assert group.finding_type.value == "52988006"
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert segment.referenced_segment_numbers[0] == number
        assert segment.source_series_for_segmentation.value == prediction.scan.details["series_uid"]


def test_the_scan_as_a_whole_comes_first(tmp_path):
    prediction = predicted(regular_series(tmp_path / "source"), threshold=0.95)
    assert not prediction.lesions
    report = content(saved(prediction, tmp_path)["dicom-sr"])
    (group,) = report.get_image_measurement_groups()
    assert values(group) == {"Anomaly score": 0.75, "Number of lesion candidates": 0}
    evaluations = {item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()}
    assert evaluations["Purpose of the result"] == "Research use only, not for diagnosis"
    assert report.get_volumetric_roi_measurement_groups() == []


def test_identity_evidence_and_validity(tmp_path):
    source = regular_series(tmp_path / "source")
    files = saved(predicted(source), tmp_path)
    report = pydicom.dcmread(files["dicom-sr"])
    for keyword, value in IDENTITY.items():
        assert report[keyword].value == value
    assert (report.VerificationFlag, report.CompletionFlag) == ("UNVERIFIED", "COMPLETE")
    evidence = [
        str(item.ReferencedSOPInstanceUID)
        for name in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for study in report.get(name) or []
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
    wanted = [pydicom.dcmread(path).SOPInstanceUID for path in (*source.iterdir(), files["dicom-seg"])]
    assert sorted(set(evidence)) == sorted(wanted)
    assert "medzsad" in str(report)
    assert new_errors(files["dicom-sr"], next(source.iterdir())) == set()


def test_images_without_a_place_are_measured_in_pixels(tmp_path):
    tags = {"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "ImagePositionPatient": None}
    image = np.abs(pixels((1, 60, 50))[0]).astype(np.uint16)
    source = write(tmp_path / "chest.dcm", image, ImageOrientationPatient=None, **tags)
    prediction = predicted(source, np.pad(np.full((6, 8, 1), 0.9), ((10, 34), (20, 32), (0, 0))))
    (group,) = content(saved(prediction, tmp_path)["dicom-sr"]).get_volumetric_roi_measurement_groups()
    measured = values(group)
    assert measured["Area"] == 48
    assert measured["Center of mass, column (from 0)"] == prediction.lesions[0].center_voxel[0]
    assert "Volume" not in measured
