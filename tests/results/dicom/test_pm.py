"""DICOM Parametric Maps, read back with highdicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import write
from dicom_results import (
    IDENTITY,
    canonical,
    headers,
    new_errors,
    of_volume,
    pixel_places,
    predicted,
    ramp_of,
    ramp_on,
    regular_series,
    require_volume_reader,
    tilted_series,
)

from medzsad.errors import BadInput
from medzsad.results.prediction import ScanPrediction
from medzsad.scans.readers import read_scan

highdicom = pytest.importorskip("highdicom")


def saved(prediction: ScanPrediction, out: Path) -> Path:
    return prediction.save(out, formats=("dicom-pm",))["dicom-pm"]


def planes_by_source(path: Path) -> dict[str, np.ndarray]:
    """Each plane's values by the UID of the image that it refers to."""
    dataset = pydicom.dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    uids = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for group in groups
    ]
    return dict(zip(uids, dataset.pixel_array, strict=True))


def test_the_map_and_its_place_come_back(tmp_path):
    require_volume_reader()
    prediction = predicted(regular_series(tmp_path / "source"))
    image = highdicom.imread(saved(prediction, tmp_path))
    array, affine = of_volume(image.get_volume(dtype=np.float32, apply_real_world_transform=False))
    wanted, wanted_affine = canonical(prediction.anomaly_map, prediction.affine)
    np.testing.assert_array_equal(array, wanted)
    np.testing.assert_allclose(affine, wanted_affine, atol=1e-5)


def test_what_it_says_of_itself(tmp_path):
    source = regular_series(tmp_path / "source")
    path = saved(predicted(source), tmp_path)
    dataset = pydicom.dcmread(path)
    assert dataset.ContentQualification == "RESEARCH"
    assert dataset.SeriesDescription == "RESEARCH medzsad: anomaly map"
    for keyword, value in IDENTITY.items():
        assert dataset[keyword].value == value
    assert dataset.PatientPosition == "HFS"
    mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert new_errors(path, next(source.iterdir())) == set()


def test_images_without_a_place_are_refused(tmp_path):
    tags = IDENTITY | {"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}
    tags |= {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    source = write(tmp_path / "chest.dcm", np.arange(3000, dtype=np.uint16).reshape(60, 50), **tags)
    prediction = predicted(source, np.full((50, 60, 1), 0.1))
    with pytest.raises(BadInput, match="no place in the patient, which a Parametric Map must have"):
        saved(prediction, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tilted_series_is_mapped_on_its_own_slices(tmp_path):
    scan = read_scan(tilted_series(tmp_path / "source"))
    prediction = predicted(scan, ramp_on(scan))
    planes = planes_by_source(saved(prediction, tmp_path))
    for header in headers(prediction):
        np.testing.assert_allclose(planes[header.SOPInstanceUID], ramp_of(pixel_places(header)), atol=2e-6)


def test_results_are_no_scans(tmp_path):
    folder = regular_series(tmp_path / "source")
    prediction = predicted(folder)
    prediction.save(folder, formats=("dicom-pm", "dicom-sr", "dicom-sc"))
    scan = read_scan(folder)
    assert scan.details["series_uid"] == prediction.scan.details["series_uid"]
    np.testing.assert_array_equal(scan.voxels, prediction.scan.voxels)
