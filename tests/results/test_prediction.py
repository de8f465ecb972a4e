from __future__ import annotations

import json
from dataclasses import fields

import nibabel
import numpy as np
import pytest
import torch
from dicom_results import headers, predicted, regular_series

import medzsad
from medzsad.detectors.references import Brightness
from medzsad.results.prediction import given_modality, prediction_from
from medzsad.scans.nifti import read_nifti
from medzsad.scans.readers import read_scan

AFFINE = np.array([[0.0, -1.5, 0, 19], [1.5, 0, 0, -12], [0, 0, 4, -20], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def result():
    voxels = np.random.default_rng(0).normal(100, 30, (10, 12, 6)).astype(np.float32)
    return medzsad.predict(voxels, Brightness(), affine=AFFINE, threshold="p90", plane="all", modality="mr")


def test_a_prediction_comes_back_from_its_meta(result) -> None:
    image = result.to_metatensor()
    assert image.shape == (1, *result.scan.shape)
    assert image.dtype == torch.float32
    assert np.array_equal(image.affine, result.affine)
    assert image.meta["score"] == result.score
    again = prediction_from(result.scan, image[0].numpy(), image.meta)
    for field in fields(result):
        if field.name not in ("anomaly_map", "prepared_box"):
            assert getattr(again, field.name) == getattr(result, field.name), field.name
    assert np.array_equal(again.anomaly_map, result.anomaly_map)
    assert again.lesions == result.lesions
    assert again.foreground_box == result.foreground_box  # found anew: scan and map may have been turned
    assert given_modality(image.meta) == "mr"
    image[:] = 0
    assert result.anomaly_map.any()  # a copy
    with pytest.raises(ValueError, match="names no prediction"):
        prediction_from(result.scan, again.anomaly_map, {})
    with pytest.raises(ValueError, match="one grid"):
        prediction_from(result.scan, again.anomaly_map[1:], image.meta)


def test_the_image_of_nibabel_is_the_file_that_is_saved(result, tmp_path) -> None:
    image = result.to_nibabel()
    saved = nibabel.load(result.save(tmp_path, formats=("nifti",))["anomaly"])
    assert np.array_equal(image.get_fdata(), saved.get_fdata())
    assert np.array_equal(image.affine, saved.affine)
    nibabel.save(image, tmp_path / "own.nii.gz")
    assert np.array_equal(read_nifti(tmp_path / "own.nii.gz").voxels, result.anomaly_map)


def test_two_equal_candidates_have_one_number_in_all_results(tmp_path):
    """Nothing tells them apart but their place, so whoever numbered them anew could swap them."""
    highdicom = pytest.importorskip("highdicom")
    from medzsad.results.html.sections import candidate_table
    from medzsad.results.montage import Montage

    scan = read_scan(regular_series(tmp_path / "series"))
    anomaly_map = np.zeros(scan.shape, np.float32)
    places = (slice(2, 6), slice(3, 8), slice(1, 3)), (slice(12, 16), slice(12, 17), slice(5, 7))
    for place in places:
        anomaly_map[place] = 0.8
    result = predicted(scan, anomaly_map)
    first, second = result.lesions
    assert (first.score, first.mean, first.voxels) == (second.score, second.mean, second.voxels)
    labels = result.candidates.labels
    numbers = [int(labels[place].max()) for place in places]
    assert sorted(numbers) == [1, 2]
    np.testing.assert_array_equal(Montage(result, 6).ranks, labels)

    files = result.save(tmp_path / "out", formats=("json", "dicom-seg", "dicom-sr"))
    listed = json.loads(files["json"].read_text())["lesions"]
    table = candidate_table(result)["rows"]
    segments = highdicom.seg.segread(files["dicom-seg"])
    uids = [str(header.SOPInstanceUID) for header in headers(result)]
    drawn = segments.get_pixels_by_source_instance(uids, combine_segments=True)
    np.testing.assert_array_equal(drawn.transpose(2, 1, 0), labels)
    report = highdicom.sr.srread(files["dicom-sr"]).content
    groups = report.get_volumetric_roi_measurement_groups()
    for number, place in zip(numbers, places, strict=True):
        peak = listed[number - 1]["peak_voxel"]
        assert all(edge.start <= index < edge.stop for edge, index in zip(place, peak, strict=True))
        assert table[number - 1]["cells"][0] == number
        assert list(table[number - 1]["voxel"]) == peak
        group = next(g for g in groups if g.tracking_identifier == f"candidate {number}")
        values = {m.name.value: m.value for m in group.get_measurements()}
        lps = [values[f"peak-{axis}"] for axis in "xyz"]
        expected = np.array(result.lesions[number - 1].peak_mm) * (-1, -1, 1)
        np.testing.assert_allclose(lps, expected, atol=1e-3)
