"""Units, voxel sizes and matrices of NIfTI files, whole and broken."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medzsad.errors import BadInput
from medzsad.scans.readers import read_scan

VOXELS = np.random.default_rng(0).normal(100, 20, (5, 6, 7)).astype(np.float32)


def stored(path: Path, sizes: tuple[float, ...] = (2, 3, 4), *, version: int = 1, **fields: object) -> Path:
    """A file whose codes are 0, unless ``fields`` say otherwise; they are written unchecked."""
    image_class = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = image_class(VOXELS, None)
    image.header.set_zooms(sizes)
    image.header["sform_code"] = image.header["qform_code"] = 0
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    raw = path.read_bytes()
    size = 348 if version == 1 else 540
    header = image_class.header_class(raw[:size], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + raw[size:])
    return path


def pixdim(*sizes: float) -> list[float]:
    return [1, *sizes, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("unit", "code", "size"),
    [("meter", 1, 5e-5), ("mm", 2, 0.05), ("micron", 3, 50.0), ("micron", 3, 0.004), ("meter", 1, 1e-3)],
)
@pytest.mark.parametrize("time_code", [0, 8, 16, 24])
@pytest.mark.parametrize("form", ["sform", "qform", "neither"])
def test_every_unit_is_read(
    tmp_path: Path, unit: str, code: int, size: float, time_code: int, form: str
) -> None:
    image = nibabel.Nifti1Image(VOXELS, None)
    image.header.set_zooms((size,) * 3)
    affine = np.diag([size, size, size, 1])
    image.header.set_qform(affine, code=int(form == "qform"))
    image.header.set_sform(affine, code=int(form == "sform"))
    image.header["xyzt_units"] = code + time_code
    image.to_filename(tmp_path / "u.nii")
    scan = read_scan(tmp_path / "u.nii")
    millimetres = size * {"meter": 1000, "mm": 1, "micron": 1e-3}[unit]
    np.testing.assert_allclose(scan.spacing, millimetres, rtol=1e-6)
    assert scan.has_geometry
    assert any(unit in note for note in scan.notes) == (unit != "mm")


@pytest.mark.parametrize("code", [0, 4, 7])
def test_no_unit_means_mm_where_it_can(tmp_path: Path, code: int) -> None:
    scan = read_scan(stored(tmp_path / "u.nii", (0.5, 0.5, 5), xyzt_units=code))
    assert scan.has_geometry
    assert any("mm is assumed" in note for note in scan.notes)
    odd = read_scan(stored(tmp_path / "m.nii", (1e-3, 1e-3, 5e-3), xyzt_units=code))  # metres, unsaid
    assert not odd.has_geometry
    assert any("cannot be in mm" in note for note in odd.notes)


@pytest.mark.parametrize("size", [0.0, np.nan, np.inf, 1e30])
@pytest.mark.parametrize("qform_code", [0, 1])
@pytest.mark.parametrize("version", [1, 2])
def test_unknown_voxel_size_is_said(tmp_path: Path, size: float, qform_code: int, version: int) -> None:
    path = stored(tmp_path / "p.nii", version=version, pixdim=pixdim(size, 3, 4), qform_code=qform_code)
    scan = read_scan(path)
    assert not scan.has_geometry
    assert any("voxel size is not known" in note for note in scan.notes)
    assert not any("reader warns" in note for note in scan.notes if size > 1)
    np.testing.assert_allclose(scan.spacing, (1, 3, 4))


def test_sizes_below_zero_are_sizes(tmp_path: Path) -> None:
    scan = read_scan(stored(tmp_path / "n.nii", pixdim=pixdim(-2, 3, 4)))
    assert scan.has_geometry
    assert scan.spacing == (2, 3, 4)


def test_sform_needs_no_pixdim(tmp_path: Path) -> None:
    rows = {"srow_x": [2, 0, 0, -5], "srow_y": [0, 3, 0, 0], "srow_z": [0, 0, 4, 1]}
    scan = read_scan(stored(tmp_path / "s.nii", pixdim=pixdim(0, 0, 0), sform_code=1, **rows))
    assert scan.has_geometry
    assert scan.spacing == (2, 3, 4)
    assert scan.affine[0, 3] == -5


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [np.nan] * 4, [1e30, 0, 0, 0]])
def test_a_broken_sform_leaves_the_qform(tmp_path: Path, row: list[float]) -> None:
    path = stored(tmp_path / "s.nii", sform_code=1, qform_code=1, qoffset_x=7, srow_x=row)
    scan = read_scan(path)
    assert scan.spacing == (2, 3, 4)
    assert scan.affine[0, 3] == 7
    assert any("the qform is used" in note for note in scan.notes)
    alone = stored(tmp_path / "a.nii", sform_code=1, srow_x=row)
    with pytest.raises(BadInput, match="maps to no volume"):
        read_scan(alone)


@pytest.mark.parametrize("quaternion", [2.0, np.nan])
def test_a_broken_qform_alone_is_refused(tmp_path: Path, quaternion: float) -> None:
    with pytest.raises(BadInput, match=r"q\.nii"):
        read_scan(stored(tmp_path / "q.nii", qform_code=1, quatern_b=quaternion))


def test_what_nibabel_mends_is_a_note_and_no_line_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scan = read_scan(stored(tmp_path / "c.nii", sform_code=99))
    assert any("reader warns: sform_code 99 not valid" in note for note in scan.notes)
    assert capfd.readouterr().err == ""


def test_offset_of_wide_integers_is_exact(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image((VOXELS.round().astype(np.int64) + 2**31).astype(np.uint32), np.eye(4))
    image.header.set_slope_inter(1, -(2.0**31))
    image.to_filename(tmp_path / "w.nii")
    np.testing.assert_array_equal(read_scan(tmp_path / "w.nii").voxels, VOXELS.round())


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_no_slope_is_no_scaling(tmp_path: Path, slope: float) -> None:
    scan = read_scan(stored(tmp_path / "s.nii", scl_slope=slope, scl_inter=5))
    np.testing.assert_array_equal(scan.voxels, VOXELS)
