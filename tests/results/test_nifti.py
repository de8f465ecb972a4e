from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medzsad.results.nifti import write_volume
from medzsad.scans.readers import read_scan

OBLIQUE = np.array([[1.9, 0.3, 0.1, -20], [-0.3, 1.9, 0.2, 11], [0.1, -0.2, 4.0, 5], [0, 0, 0, 1]])


def stored(path: Path, affine: np.ndarray, *, qform: int = 1, sform: int = 1, units: str = "mm") -> Path:
    image = nibabel.Nifti1Image(np.random.default_rng(0).random((6, 7, 5)).astype(np.float32), affine)
    image.set_qform(affine, code=qform)
    image.set_sform(affine, code=sform)
    image.header.set_xyzt_units(units)
    image.header["descrip"] = b"Jane Doe 1970"
    nibabel.save(image, path)
    return path


def straightened(affine: np.ndarray) -> np.ndarray:
    """The nearest affine without shear, which both qform and sform can hold."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, v = np.linalg.svd(affine[:3, :3] / spacing)
    result = affine.copy()
    result[:3, :3] = (u @ v) * spacing
    return result


@pytest.mark.parametrize(("qform", "sform"), [(1, 1), (0, 2), (1, 0), (0, 4), (0, 0)])
@pytest.mark.parametrize("units", ["mm", "meter", "micron", "unknown"])
def test_outputs_lie_where_the_input_lies(tmp_path, qform, sform, units):
    source = stored(tmp_path / "scan.nii.gz", straightened(OBLIQUE), qform=qform, sform=sform, units=units)
    write_volume(np.ones((6, 7, 5), np.float32), read_scan(source), tmp_path / "map.nii.gz")
    before, after = nibabel.load(source), nibabel.load(tmp_path / "map.nii.gz")
    np.testing.assert_allclose(after.affine, before.affine, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after.header.get_zooms(), before.header.get_zooms(), rtol=1e-5)
    for code in ("qform_code", "sform_code"):
        assert int(after.header[code]) == int(before.header[code])
    assert after.header.get_xyzt_units()[0] == before.header.get_xyzt_units()[0]


def test_free_text_is_not_carried_over(tmp_path):
    source = stored(tmp_path / "scan.nii.gz", OBLIQUE)
    write_volume(np.ones((6, 7, 5), np.float32), read_scan(source), tmp_path / "map.nii")
    assert b"Jane" not in (tmp_path / "map.nii").read_bytes()
