"""Predictions brought back to the acquired slices."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from dicom_results import (
    headers,
    pixel_places,
    predicted,
    ramp_of,
    ramp_on,
    regular_series,
    tilted_series,
)

from medzsad.errors import BadInput
from medzsad.results.dicom import source_frames as module
from medzsad.results.dicom.source_frames import image_numbers, source_frames
from medzsad.scans.readers import read_scan


def test_a_regular_series_is_taken_over_exactly(tmp_path):
    prediction = predicted(regular_series(tmp_path))
    frames = source_frames(prediction)
    assert not frames.resampled
    np.testing.assert_array_equal(frames.anomaly_map, prediction.anomaly_map.transpose(2, 1, 0))
    np.testing.assert_array_equal(frames.mask, prediction.mask.transpose(2, 1, 0))
    np.testing.assert_array_equal(frames.labels > 0, frames.mask)
    for frame, header, plane in zip(frames.frames, headers(prediction), frames.anomaly_map, strict=True):
        assert list(frame.position) == list(header.ImagePositionPatient)
        assert plane.shape == (header.Rows, header.Columns)


def test_candidates_are_numbered_as_they_are_listed(tmp_path):
    prediction = predicted(regular_series(tmp_path))
    frames = source_frames(prediction)
    assert len(frames.candidates) == len(prediction.lesions) == 2
    for number, lesion in enumerate(prediction.lesions, start=1):
        assert np.count_nonzero(frames.labels == number) == lesion.voxels
        column, row, plane = lesion.center_voxel
        assert frames.labels[plane, row, column] == number
    assert frames.has_others  # the speck
    assert np.count_nonzero(frames.labels == 3) == 1


def test_a_tilted_series_agrees_at_world_positions(tmp_path):
    scan = read_scan(tilted_series(tmp_path))
    assert scan.details["geometry"]["resampled"]
    prediction = predicted(scan, ramp_on(scan), threshold=0.51)
    frames = source_frames(prediction)
    assert frames.resampled
    wanted = np.stack([ramp_of(pixel_places(header)) for header in headers(prediction)])
    np.testing.assert_allclose(frames.anomaly_map, wanted, atol=2e-6)
    np.testing.assert_array_equal(frames.mask, frames.anomaly_map >= 0.51)
    assert 0 < frames.mask.mean() < 1
    np.testing.assert_array_equal(frames.labels > 0, frames.mask)


def test_candidates_of_a_tilted_series_lie_where_they_are(tmp_path):
    prediction = predicted(tilted_series(tmp_path))
    frames = source_frames(prediction)
    places = np.stack([pixel_places(header) for header in headers(prediction)])
    for number, lesion in enumerate(prediction.lesions, start=1):
        centre = places[frames.labels == number].mean(axis=0)
        assert np.abs(centre - lesion.center_mm).max() < 2.5  # slices are 3 to 6 mm apart


def test_a_threshold_of_zero_leaves_the_background_out(tmp_path):
    scan = read_scan(tilted_series(tmp_path))
    anomaly_map = np.zeros(scan.shape)
    anomaly_map[5:10] = 0.4
    frames = source_frames(predicted(scan, anomaly_map, threshold=0.0))
    np.testing.assert_array_equal(frames.mask, frames.anomaly_map > 0)
    assert not frames.mask.all()


def test_further_candidates_share_a_number(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_CANDIDATES", 1)
    frames = source_frames(predicted(regular_series(tmp_path)))
    assert len(frames.candidates) == 1
    assert sorted(np.unique(frames.labels)) == [0, 1, 2]


def test_other_formats_have_no_source_frames(tmp_path):
    prediction = predicted(regular_series(tmp_path))
    prediction.scan = dataclasses.replace(prediction.scan, frames=())
    with pytest.raises(BadInput, match="not DICOM"):
        source_frames(prediction)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dicom_head_ct", "dicom_brain_mr"])
def test_real_series(shared, name):
    folder = shared(f"data/{name}")
    scan = read_scan(folder)
    prediction = predicted(scan, ramp_on(scan), threshold=0.8)
    frames = source_frames(prediction)
    assert frames.resampled == (name == "dicom_head_ct")
    for plane, header in zip(frames.anomaly_map, headers(prediction), strict=True):
        np.testing.assert_allclose(plane, ramp_of(pixel_places(header)), atol=1e-4)


def test_a_regular_series_has_its_own_numbers(tmp_path):
    scan = read_scan(regular_series(tmp_path))
    numbers = image_numbers(scan)
    assert list(numbers.numbers) == [frame.number for frame in scan.frames]
    assert numbers.of(2, 1) == f"image {scan.frames[1].number}"
    assert numbers.of(0, 1) == ""


def test_a_resampled_series_has_the_nearest(tmp_path):
    scan = read_scan(tilted_series(tmp_path))
    numbers = image_numbers(scan)
    assert len(numbers.numbers) == scan.shape[2]
    assert set(numbers.numbers) <= {frame.number for frame in scan.frames}
    assert numbers.of(2, 0).startswith("near image ")
    ordered = list(numbers.numbers)
    assert ordered == sorted(ordered) or ordered == sorted(ordered, reverse=True)
