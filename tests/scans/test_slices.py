from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from orientations import all_orientations, reoriented

from medzsad.scans.scan import Modality, Scan
from medzsad.scans.slices import CanonicalView, Plane, pixel_spacing, planes_to_slice, slice_image


def scan_of(voxels: np.ndarray, affine: np.ndarray) -> Scan:
    return Scan(voxels, affine, Modality.MR, "given", "scan", Path("scan.nii.gz"))


@pytest.mark.parametrize(("order", "signs"), all_orientations())
def test_every_orientation_has_the_same_canonical_view_and_comes_back(order, signs):
    voxels = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    affine = np.array([[2, 0.1, 0, -3], [-0.1, 2.5, 0.2, 4], [0, -0.2, 3, 5], [0, 0, 0, 1]])
    scan = scan_of(*reoriented(voxels, affine, order, signs))
    view = CanonicalView.of(scan)
    np.testing.assert_array_equal(view.to_canonical(scan.voxels), voxels)
    np.testing.assert_array_equal(view.to_native(view.to_canonical(scan.voxels)), scan.voxels)
    axis, index = view.native_index(2, 1)
    np.testing.assert_array_equal(
        np.sort(np.take(scan.voxels, index, axis).ravel()), np.sort(voxels[:, :, 1].ravel())
    )


def test_colour_axis_stays_last():
    scan = scan_of(np.zeros((4, 5, 6, 3), np.float32), np.diag([1, -1, 1, 1]))
    assert CanonicalView.of(scan).to_canonical(scan.voxels).shape == (4, 5, 6, 3)


@pytest.mark.parametrize(
    ("spacing", "shape", "expected"),
    [
        ((1, 1, 1), (8, 8, 8), Plane.AXIAL),
        ((1, 1, 5), (8, 8, 8), Plane.AXIAL),
        ((1, 4, 1), (8, 8, 8), Plane.CORONAL),
        ((0.9, 0.86, 0.86), (8, 8, 8), Plane.SAGITTAL),
        ((1.001, 1, 1), (8, 8, 8), Plane.AXIAL),
        ((1, 3, 3), (8, 8, 8), Plane.AXIAL),
        ((1, 1, 1), (8, 1, 8), Plane.CORONAL),
    ],
)
def test_auto_plane_is_the_acquisition_plane(spacing, shape, expected):
    view = CanonicalView.of(scan_of(np.zeros(shape, np.float32), np.diag([*spacing, 1.0])))
    assert planes_to_slice("auto", view) == (expected,)


def test_all_planes_and_a_given_plane():
    view = CanonicalView.of(scan_of(np.zeros((3, 3, 3), np.float32), np.eye(4)))
    assert planes_to_slice("all", view) == (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL)
    assert planes_to_slice("coronal", view) == (Plane.CORONAL,)


@pytest.mark.parametrize(
    ("plane", "corner"),
    [  # the canonical voxel shown top left: right anterior, right superior, anterior superior
        (Plane.AXIAL, (3, 4, 0)),
        (Plane.CORONAL, (3, 0, 5)),
        (Plane.SAGITTAL, (0, 4, 5)),
    ],
)
def test_slices_are_shown_in_the_radiological_convention(plane, corner):
    volume = np.zeros((4, 5, 6), np.float32)
    volume[corner] = 1
    image = slice_image(volume, plane, 0)
    assert image[0, 0] == 1
    assert image.sum() == 1


def test_pixel_spacing_is_rows_then_columns():
    view = CanonicalView.of(scan_of(np.zeros((3, 3, 3), np.float32), np.diag([1.0, 2.0, 3.0, 1.0])))
    assert pixel_spacing(view.spacing, Plane.AXIAL) == (2.0, 1.0)
    assert pixel_spacing(view.spacing, Plane.CORONAL) == (3.0, 1.0)
    assert pixel_spacing(view.spacing, Plane.SAGITTAL) == (3.0, 2.0)
