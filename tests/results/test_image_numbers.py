"""Slices are called by the number of the DICOM image that a viewing station shows."""

from __future__ import annotations

from dicom_results import regular_series, tilted_series

from medzsad.results.image_numbers import image_numbers
from medzsad.scans.readers import read_scan


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
