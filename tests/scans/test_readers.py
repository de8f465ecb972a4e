"""Reading whatever lies at a path."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_factory import ramp, write, write_series
from PIL import Image

from medzsad.errors import BadInput
from medzsad.scans.find import find_scans, locate_scans
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality


def nifti(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(array, np.eye(4)).to_filename(path)
    return path


def varied(shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        read_scan(tmp_path / "no.nii.gz")
    with pytest.raises(BadInput, match="does not exist"):
        find_scans(tmp_path / "no")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    array = varied()
    array[0, 0, :3] = value
    with pytest.raises(BadInput, match=r"3 NaN or infinite voxels \(2.50%\).*nan_to_num"):
        read_scan(nifti(tmp_path / "n.nii.gz", array))


def test_infinities_of_both_signs(tmp_path: Path) -> None:
    array = varied()
    array[0, 0, 0], array[0, 0, 1] = np.inf, -np.inf
    with pytest.raises(BadInput, match="2 NaN"):
        read_scan(nifti(tmp_path / "n.nii.gz", array))


def test_constant_volume(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"constant \(every voxel is 7\)"):
        read_scan(nifti(tmp_path / "c.nii.gz", np.full((4, 4, 4), 7, np.int16)))


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", b"hello there, no scan"), ("b", b"\x00" * 500), ("c.mha", b"O")]
)
def test_other_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match="NIfTI"):
        read_scan(tmp_path / name)


def test_folders_without_dicom(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="empty folder"):
        read_scan(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match="none of them a scan"):
        read_scan(tmp_path)
    nifti(tmp_path / "a.nii.gz", varied())
    with pytest.raises(BadInput, match="no DICOM series but 1 NIfTI"):
        read_scan(tmp_path)


def test_modality_is_overridden(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz", varied())
    scan = read_scan(path, modality="CT")
    assert (scan.modality, scan.modality_source) == (Modality.CT, "given")
    assert not any("guessed" in note for note in scan.notes)
    with pytest.raises(BadInput, match="ct, mr, xray, us, rgb, grey"):
        read_scan(path, modality="pet")
    with pytest.raises(BadInput, match="grey volume"):
        read_scan(path, modality="rgb")
    Image.fromarray(np.eye(20, dtype=np.uint8) * 200).save(tmp_path / "tile.png")
    photograph = read_scan(tmp_path / "tile.png", modality="rgb")
    assert (photograph.modality, photograph.is_colour) == (Modality.RGB, False)


def test_find_scans(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no scans"):
        find_scans(tmp_path)
    series = write_series(tmp_path / "b/series", ramp(2), [0, 2])
    volumes = [nifti(tmp_path / name, varied()) for name in ("a.nii.gz", "c.nii")]
    Image.fromarray(np.eye(5, dtype=np.uint8)).save(tmp_path / "d.png")
    (tmp_path / "readme.txt").write_text("x")
    nifti(tmp_path / ".hidden/x.nii", varied())
    assert find_scans(tmp_path) == [*volumes, tmp_path / "d.png", series]
    assert find_scans(series) == [series]
    assert find_scans(volumes[0]) == [volumes[0]]


def test_a_folder_that_is_an_entry_of_itself(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a/t1.nii.gz", varied())
    (tmp_path / "a/self").symlink_to(tmp_path)
    (tmp_path / "empty.nii.gz").touch()
    assert find_scans(tmp_path) == [tmp_path / "empty.nii.gz", path]
    with pytest.raises(BadInput, match="empty"):
        read_scan(tmp_path / "empty.nii.gz")


def test_find_radiographs_one_by_one(tmp_path: Path) -> None:
    alone = {"Modality": "DX", "ImagePositionPatient": None, "ImageOrientationPatient": None}
    files = [write(tmp_path / f"{i}.dcm", ramp(1)[0], **alone) for i in range(3)]
    assert find_scans(tmp_path) == files


def test_scan_becomes_a_metatensor(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    scan = read_scan(nifti(tmp_path / "a.nii.gz", varied()))
    tensor = scan.as_metatensor()
    assert tuple(tensor.shape) == (1, 4, 5, 6)
    np.testing.assert_array_equal(tensor.affine, scan.affine)


@pytest.mark.parametrize("modality", ["ct", None])
def test_a_ct_that_is_not_in_hu_is_said(tmp_path: Path, modality: str | None) -> None:
    head = np.full((16, 16, 8), -1000, np.int16)
    head[4:12, 4:12], head[4, 4:12] = 40, 900
    shifted = read_scan(nifti(tmp_path / "s.nii.gz", (head + 1024).astype(np.uint16)), modality=modality)
    assert any("may not be HU" in note for note in shifted.notes) == (modality == "ct")
    right = read_scan(nifti(tmp_path / "r.nii.gz", head), modality=modality)
    assert right.modality is Modality.CT
    assert not any("HU" in note for note in right.notes)


def test_an_empty_path_is_not_the_current_folder() -> None:
    for read in (read_scan, locate_scans):
        with pytest.raises(BadInput, match="the path of the scan is empty"):
            read("")
