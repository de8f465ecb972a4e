from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_scans import AFFINE, small_head
from orientations import all_orientations, reoriented

from medzsad.errors import BadInput
from medzsad.scans.foreground import foreground_mask
from medzsad.scans.prepared import EMPTY_FRACTION, PreparedVolume, box_around, slices_worth_computing
from medzsad.scans.scan import Modality, Scan
from medzsad.scans.slices import Plane, slice_image


def head(voxels: np.ndarray, affine: np.ndarray) -> Scan:
    return Scan(voxels, affine, Modality.MR, "given", "head", Path("head.nii.gz"))


def test_all_48_orders_of_the_voxels_are_prepared_alike():
    voxels = small_head()
    expected = PreparedVolume.of(head(voxels, AFFINE))
    assert expected.planes == (Plane.AXIAL,)
    for order, signs in all_orientations():
        prepared = PreparedVolume.of(head(*reoriented(voxels, AFFINE, order, signs)))
        np.testing.assert_array_equal(prepared.scan.voxels, expected.scan.voxels)
        np.testing.assert_array_equal(prepared.foreground, expected.foreground)
        assert (prepared.scaling, prepared.planes, prepared.box) == (
            expected.scaling, expected.planes, expected.box,
        )  # fmt: skip


def test_foreground_and_box_are_those_of_the_scan_itself():
    scan = head(small_head(), AFFINE)
    prepared = PreparedVolume.of(scan)
    mask = foreground_mask(scan)
    np.testing.assert_array_equal(prepared.view.to_native(prepared.foreground), mask)
    for (first, end), places in zip(prepared.box, np.nonzero(prepared.foreground), strict=True):
        assert (first, end) == (places.min(), places.max() + 1)


def test_an_image_is_scaled_and_black_outside_the_foreground():
    prepared = PreparedVolume.of(head(small_head(), AFFINE))
    index = prepared.slices(Plane.AXIAL)[2]
    image = prepared.image(Plane.AXIAL, index)
    inside = slice_image(prepared.foreground, Plane.AXIAL, index)
    assert image.dtype == np.float32
    assert not image[:, ~inside].any()
    expected = prepared.scaling(slice_image(prepared.scan.voxels, Plane.AXIAL, index))
    np.testing.assert_array_equal(image[:, inside], expected[:, inside])


def test_slices_with_next_to_nothing_are_not_worth_computing():
    foreground = np.zeros((100, 50, 6), bool)
    foreground[:, :, 2] = True  # 5,000 voxels
    foreground[: int(5000 * EMPTY_FRACTION), 0, 3] = True
    foreground[: int(5000 * EMPTY_FRACTION) + 1, 0, 4] = True
    foreground[:30, :, 5] = True
    assert slices_worth_computing(foreground, Plane.AXIAL) == [2, 4, 5]
    assert slices_worth_computing(foreground, Plane.AXIAL, least_area=0.2) == [2, 5]
    assert slices_worth_computing(np.zeros_like(foreground), Plane.AXIAL) == []
    assert box_around(foreground) == ((0, 100), (0, 50), (2, 6))


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(BadInput, match="not CT"):
        PreparedVolume.of(head(small_head(), AFFINE), window="brain")
