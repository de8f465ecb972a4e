from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from medzsad.results.map_files import write_volume
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


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("codes", [(1, 2), (2, 1), (4, 3)])
def test_both_matrices_are_kept_to_the_bit(tmp_path, version, codes):
    """Where they differ, some programs take the one and some the other."""
    image_class = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = image_class(np.random.default_rng(0).random((6, 7, 5)).astype(np.float32), None)
    image.set_qform(straightened(OBLIQUE), code=codes[0])
    image.set_sform(np.array([[0, -2.5, 0, 3], [1.5, 0, 0.1, -4], [0, 0, 3, 7], [0, 0, 0, 1]]), code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / "scan.nii.gz")
    write_volume(np.ones((6, 7, 5), np.uint8), read_scan(tmp_path / "scan.nii.gz"), tmp_path / "mask.nii.gz")
    before, after = (nibabel.load(tmp_path / name).header for name in ("scan.nii.gz", "mask.nii.gz"))
    assert int(before["sizeof_hdr"]) == int(after["sizeof_hdr"])
    for name in ("qform_code", "sform_code"):
        assert after[name] == before[name]
    np.testing.assert_array_equal(after.get_qform(), before.get_qform())
    np.testing.assert_array_equal(after.get_sform(), before.get_sform())
    np.testing.assert_array_equal(after["pixdim"][:4], before["pixdim"][:4])


def test_a_broken_sform_is_replaced_by_the_qform(tmp_path):
    source = stored(tmp_path / "scan.nii", straightened(OBLIQUE))
    data = bytearray(source.read_bytes())
    data[280:328] = b"\0" * 48  # the rows of the sform
    source.write_bytes(bytes(data))
    write_volume(np.ones((6, 7, 5), np.uint8), read_scan(source), tmp_path / "mask.nii")
    after = nibabel.load(tmp_path / "mask.nii").header
    np.testing.assert_allclose(after.get_sform(), straightened(OBLIQUE), atol=1e-4)
    np.testing.assert_allclose(after.get_qform(), straightened(OBLIQUE), atol=1e-4)


def test_an_affine_that_was_changed_since_is_the_one_that_counts(tmp_path):
    scan = read_scan(stored(tmp_path / "scan.nii.gz", straightened(OBLIQUE)))
    moved = scan.affine.copy()
    moved[:3, 3] += 5
    write_volume(np.ones((6, 7, 5)), replace(scan, affine=moved), tmp_path / "map.nii")
    np.testing.assert_allclose(nibabel.load(tmp_path / "map.nii").affine, moved, atol=1e-4)


def test_sheared_axes_have_no_qform(tmp_path):
    scan = read_scan(stored(tmp_path / "scan.nii.gz", straightened(OBLIQUE)))
    sheared = np.diag([2.0, 3.0, 4.0, 1.0])
    sheared[0, 1] = 1.0
    write_volume(np.ones((6, 7, 5)), replace(scan, affine=sheared, header={}), tmp_path / "map.nii")
    after = nibabel.load(tmp_path / "map.nii")
    np.testing.assert_allclose(after.affine, sheared)
    assert (after.header["qform_code"], after.header["sform_code"]) == (0, 1)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mgz"])
def test_maps_of_other_formats_lie_on_their_scan(tmp_path, suffix):
    """As SimpleITK and nibabel see both."""
    array = np.random.default_rng(0).integers(0, 99, (6, 7, 5)).astype(np.int32)
    affine = straightened(OBLIQUE)
    path = tmp_path / f"scan{suffix}"
    if suffix == ".mgz":
        nibabel.MGHImage(array, affine).to_filename(path)
    else:
        nibabel.Nifti1Image(array, affine).to_filename(tmp_path / "twin.nii")
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / "twin.nii")), str(path))
    scan = read_scan(path)
    write_volume(scan.voxels, scan, tmp_path / "map.nii.gz")
    written = nibabel.load(tmp_path / "map.nii.gz")
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    assert written.header.get_xyzt_units()[0] == "mm"
    assert (written.header["qform_code"], written.header["sform_code"]) == (1, 1)
    if suffix != ".mgz":
        before, after = SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(tmp_path / "map.nii.gz"))
        for what in ("GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(after, what)(), getattr(before, what)(), atol=1e-4)
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(after), SimpleITK.GetArrayFromImage(before))


def test_display_range_and_description(tmp_path):
    scan = read_scan(stored(tmp_path / "scan.nii.gz", straightened(OBLIQUE)))
    write_volume(np.ones((6, 7, 5)), scan, tmp_path / "map.nii", what="anomaly map", fingerprint="0a1b")
    header = nibabel.load(tmp_path / "map.nii").header
    assert (header["cal_min"], header["cal_max"]) == (0, 1)
    assert bytes(header["descrip"]).rstrip(b"\0") == b"medzsad result 0a1b: anomaly map"
    write_volume(scan.voxels, scan, tmp_path / "scan2.nii", what="scan as read")
    assert nibabel.load(tmp_path / "scan2.nii").header["cal_max"] == 0  # no range is stated


def test_free_text_is_not_carried_over(tmp_path):
    source = stored(tmp_path / "scan.nii.gz", OBLIQUE)
    write_volume(np.ones((6, 7, 5), np.float32), read_scan(source), tmp_path / "map.nii")
    assert b"Jane" not in (tmp_path / "map.nii").read_bytes()
