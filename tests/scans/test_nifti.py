"""NIfTI files, whole and broken."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from shared_data import Shared

from medzsad.errors import BadInput
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None, **header: object) -> Path:
    nifti = nibabel.Nifti1Image(array, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine)
    for name, value in header.items():
        nifti.header[name] = value
    nifti.to_filename(path)
    return path


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, (5, 6, 7)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_values_geometry_and_name(tmp_path: Path, volume: np.ndarray, suffix: str, dtype: type) -> None:
    stored = volume.astype(dtype)
    scan = read_scan(save(tmp_path / f"case.v2{suffix}", stored))
    np.testing.assert_allclose(scan.voxels, stored, rtol=1e-6)
    assert scan.voxels.dtype == np.float32
    assert scan.spacing == (2.0, 3.0, 4.0)
    assert scan.name == "case.v2"
    assert (scan.modality, scan.modality_source) == (Modality.MR, "guessed")
    assert any("guessed" in note for note in scan.notes)
    assert not scan.is_2d


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nifti = nibabel.Nifti1Image(stored, np.eye(4))
    nifti.header.set_slope_inter(2.0, -1024.0)
    nifti.to_filename(tmp_path / "s.nii.gz")
    scaled = nibabel.load(tmp_path / "s.nii.gz").get_fdata()
    np.testing.assert_allclose(read_scan(tmp_path / "s.nii.gz").voxels, scaled)


def test_big_endian(tmp_path: Path, volume: np.ndarray) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.Nifti1Image(volume.astype(">f4"), np.eye(4), header).to_filename(tmp_path / "b.nii")
    scan = read_scan(tmp_path / "b.nii")
    np.testing.assert_array_equal(scan.voxels, volume)
    assert scan.voxels.dtype.isnative


def test_oblique_affine_is_kept(tmp_path: Path, volume: np.ndarray) -> None:
    turn = nibabel.eulerangles.euler2mat(0.3, -0.2, 0.5)
    affine = nibabel.affines.from_matvec(turn @ np.diag([1.0, 1.2, 3.0]), [5, -7, 11])
    scan = read_scan(save(tmp_path / "o.nii.gz", volume, affine))
    np.testing.assert_allclose(scan.affine, affine, atol=1e-5)
    np.testing.assert_allclose(scan.spacing, (1.0, 1.2, 3.0), rtol=1e-5)


def test_4d_needs_a_volume(tmp_path: Path, volume: np.ndarray) -> None:
    path = save(tmp_path / "t.nii.gz", np.stack([volume, volume + 7], axis=3))
    with pytest.raises(BadInput, match="`volume` 0 to `volume` 1"):
        read_scan(path)
    with pytest.raises(BadInput, match="`volume` 2 does not exist"):
        read_scan(path, volume=2)
    scan = read_scan(path, volume=1)
    np.testing.assert_array_equal(scan.voxels, volume + 7)
    assert scan.details["volume"] == 1
    assert "Volume 1 of 0 to 1 was read." in scan.notes


def test_volume_of_a_3d_file(tmp_path: Path, volume: np.ndarray) -> None:
    path = save(tmp_path / "v.nii", volume[..., None])  # a fourth axis of size 1 is no choice
    assert read_scan(path).shape == volume.shape
    assert read_scan(path, volume=0).shape == volume.shape
    with pytest.raises(BadInput, match="one volume"):
        read_scan(path, volume=1)


@pytest.mark.parametrize(
    ("shape", "expected"), [((5, 6), (5, 6, 1)), ((5, 6, 1), (5, 6, 1)), ((5, 1, 6), (5, 1, 6))]
)
def test_single_slices(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    stored = np.arange(30, dtype=np.int16).reshape(shape)
    scan = read_scan(save(tmp_path / "slice.nii", stored))
    np.testing.assert_array_equal(scan.voxels, stored.reshape(expected))
    assert not scan.is_2d


@pytest.mark.parametrize("names", ["RGB", "RGBA"])
def test_rgb(tmp_path: Path, names: str) -> None:
    values = np.random.default_rng(0).integers(0, 255, (4, 5, 6, len(names)), dtype=np.uint8)
    stored = values.view([(name, "u1") for name in names]).reshape(4, 5, 6)
    scan = read_scan(save(tmp_path / "c.nii.gz", stored))
    assert scan.modality is Modality.RGB
    np.testing.assert_array_equal(scan.voxels, values[..., :3])


def test_unknown_orientation_is_said(tmp_path: Path, volume: np.ndarray) -> None:
    nifti = nibabel.Nifti1Image(volume, None)
    nifti.header.set_zooms((1, 2, 3))
    nifti.to_filename(tmp_path / "u.nii")
    scan = read_scan(tmp_path / "u.nii")
    assert any("sform and qform codes are 0" in note for note in scan.notes)
    assert scan.spacing == (1.0, 2.0, 3.0)
    assert (scan.header["qform_code"], scan.header["sform_code"]) == (0, 0)


def test_disagreeing_forms_are_said(tmp_path: Path, volume: np.ndarray) -> None:
    nifti = nibabel.Nifti1Image(volume, np.eye(4))
    nifti.set_qform(np.diag([1, 1, 2, 1]), code=1)
    nifti.to_filename(tmp_path / "q.nii")
    scan = read_scan(tmp_path / "q.nii")
    assert any("disagree" in note for note in scan.notes)
    assert scan.spacing == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0)])
def test_units(tmp_path: Path, volume: np.ndarray, unit: str, scale: float) -> None:
    nifti = nibabel.Nifti1Image(volume, np.diag([2 / scale, 2 / scale, 2 / scale, 1]))
    nifti.header.set_xyzt_units(unit, "sec")
    nifti.to_filename(tmp_path / "m.nii")
    scan = read_scan(tmp_path / "m.nii")
    np.testing.assert_allclose(scan.spacing, (2, 2, 2), rtol=1e-6)
    assert scan.header["unit_scale"] == scale
    assert scan.header["xyzt_units"] == int(nifti.header["xyzt_units"])
    assert any(unit in note for note in scan.notes) == (scale != 1.0)


def broken(path: Path, volume: np.ndarray, how: str) -> Path:
    if how == "truncated":
        whole = save(path.parent / "whole.nii.gz", np.tile(volume, (4, 4, 4))).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "no header":
        path.write_bytes(gzip.compress(b"\0" * 100))
    elif how == "text":
        path.write_text("not a scan")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "not gzip":
        save(path.parent / "plain.nii", volume).rename(path)
    elif how == "corrupt":
        data = bytearray(save(path.parent / "whole.nii.gz", np.tile(volume, (4, 4, 4))).read_bytes())
        data[len(data) // 2 : len(data) // 2 + 200] = b"\xff" * 200
        path.write_bytes(bytes(data))
    elif how == "check sum":
        data = bytearray(save(path, volume).read_bytes())
        data[-8] ^= 0xFF
        path.write_bytes(bytes(data))
    elif how == "zero axis":
        save(path, np.zeros((4, 0, 3), np.float32))
    elif how == "complex":
        save(path, volume.astype(np.complex64))
    elif how == "5D":
        save(path, np.zeros((2, 2, 2, 2, 2), np.float32))
    elif how == "flat affine":
        nifti = nibabel.Nifti1Image(volume, np.eye(4))
        nifti.header["srow_z"], nifti.header["sform_code"] = 0, 1
        nibabel.Nifti1Image(volume, None, nifti.header).to_filename(path)
        header = bytearray(gzip.decompress(path.read_bytes()))
        header[254:256] = (1).to_bytes(2, "little")
        path.write_bytes(gzip.compress(bytes(header)))
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "cut short"),
        ("no header", "NIfTI"),
        ("text", "NIfTI|gzip"),
        ("empty", "empty"),
        ("not gzip", "gzip"),
        ("corrupt", "damaged|NIfTI"),
        ("check sum", "check sum"),
        ("zero axis", "4 x 0 x 3"),
        ("complex", "complex"),
        ("5D", "5 axes"),
        ("flat affine", "affine"),
    ],
)
def test_broken_files_are_one_clear_line(tmp_path: Path, volume: np.ndarray, how: str, words: str) -> None:
    path = broken(tmp_path / "bad.nii.gz", volume, how)
    with pytest.raises(BadInput, match=words) as caught:
        read_scan(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_real_volumes(shared: Shared) -> None:
    folder = shared("data/body_ct_small/tests/reference_files")
    ct, mr = read_scan(folder / "example_ct_sm.nii.gz"), read_scan(folder / "example_mr_sm.nii.gz")
    assert (ct.modality, mr.modality) == (Modality.CT, Modality.MR)
    assert ct.name == "example_ct_sm"
    brain = read_scan(shared("data/brats2013/pat0001/Flair_subtrMeanDivStd.nii.gz"))
    assert brain.modality is Modality.MR
    assert brain.shape == (240, 240, 155)
