"""Patient axes."""

from __future__ import annotations

import nibabel
import numpy as np

from medzsad.scans.affines import dicom_affine, display_affine


def test_axial_dicom_slices_run_left_posterior_superior() -> None:
    axes = (np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]))
    affine = dicom_affine(np.array([1.0, 2.0, 3.0]), axes, (0.5, 0.6, 2.0))
    assert nibabel.aff2axcodes(affine) == ("L", "P", "S")
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [-1, -2, 3, 1])
    np.testing.assert_allclose(affine @ [1, 1, 1, 1], [-1.5, -2.6, 5, 1])


def test_display_axes() -> None:
    affine = display_affine((0.5, 0.6, 1.0))
    assert nibabel.aff2axcodes(affine) == ("L", "I", "P")
    assert np.linalg.det(affine) > 0
