"""Bad input: one clear line, exit code 2, nothing left behind."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def nifti(path: Path, voxels: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    return path


def good(shape: tuple[int, ...] = (16, 16, 4)) -> np.ndarray:
    return np.random.default_rng(0).random(shape).astype(np.float32) * 100


def not_a_scan(folder: Path) -> Path:
    path = folder / "letter.nii.gz"
    path.write_bytes(b"Dear colleague, please find enclosed")
    return path


def not_a_scan_by_name(folder: Path) -> Path:
    path = folder / "letter.txt"
    path.write_text("Dear colleague")
    return path


def truncated_gz(folder: Path) -> Path:
    path = nifti(folder / "cut.nii.gz", good((64, 64, 16)))
    path.write_bytes(path.read_bytes()[:40_000])
    return path


def truncated_nii(folder: Path) -> Path:
    path = nifti(folder / "cut.nii", good())
    path.write_bytes(path.read_bytes()[:-100])
    return path


def damaged_gz(folder: Path) -> Path:
    path = folder / "damaged.nii.gz"
    data = bytearray(gzip.compress(nifti(folder / "whole.nii", good((32, 32, 8))).read_bytes()))
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(bytes(data))
    return path


def missing_file(folder: Path) -> Path:
    return folder / "nowhere.nii.gz"


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def folder_of_non_images(folder: Path) -> Path:
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("a")
    (folder / "texts" / "b.csv").write_text("b")
    return folder / "texts"


def dicom_without_pixels(folder: Path) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(folder / "report.dcm"), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = "SR"
    dataset.save_as(folder / "report.dcm")
    return folder / "report.dcm"


def four_dimensional(folder: Path) -> Path:
    return nifti(folder / "series.nii.gz", good((8, 8, 4, 3)))


def not_a_number(folder: Path) -> Path:
    voxels = good()
    voxels[3, 3, 1] = np.nan
    return nifti(folder / "nan.nii.gz", voxels)


def infinite(folder: Path) -> Path:
    voxels = good()
    voxels[3, 3, 1] = np.inf
    return nifti(folder / "inf.nii.gz", voxels)


def constant(folder: Path) -> Path:
    return nifti(folder / "constant.nii.gz", np.full((16, 16, 4), 7.0, np.float32))


def zero_size_axis(folder: Path) -> Path:
    return nifti(folder / "flat.nii.gz", np.zeros((16, 16, 0), np.float32))


def damaged_png(folder: Path) -> Path:
    path = folder / "photo.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    return path


BAD = [
    (not_a_scan, "letter.nii.gz"),
    (not_a_scan_by_name, "letter.txt"),
    (truncated_gz, "cut.nii.gz"),
    (truncated_nii, "cut.nii"),
    (damaged_gz, "damaged.nii.gz"),
    (missing_file, "nowhere.nii.gz"),
    (empty_folder, "empty"),
    (folder_of_non_images, "texts"),
    (dicom_without_pixels, "report.dcm"),
    (four_dimensional, "--volume"),
    (not_a_number, "nan.nii.gz"),
    (infinite, "inf.nii.gz"),
    (constant, "constant.nii.gz"),
    (zero_size_axis, "flat.nii.gz"),
    (damaged_png, "photo.png"),
]


def assert_one_clear_line(err: str, mention: str) -> None:
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert mention in lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(("make", "mention"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_bad_input(medzsad, tmp_path, make, mention):
    code, out, err = medzsad("predict", make(tmp_path), "-o", tmp_path / "new" / "out")
    assert code == 2
    assert out == ""
    assert_one_clear_line(err, mention)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def scan(tmp_path) -> Path:
    return nifti(tmp_path / "scan.nii.gz", good())


def test_volume_that_is_not_there(medzsad, tmp_path):
    code, _, err = medzsad("predict", four_dimensional(tmp_path), "--volume", 3, "-o", tmp_path / "out")
    assert code == 2
    assert_one_clear_line(err, "series.nii.gz")


def test_output_folder_is_a_file(medzsad, scan, tmp_path):
    (tmp_path / "out").write_text("here already")
    code, _, err = medzsad("predict", scan, "-o", tmp_path / "out")
    assert code == 2
    assert_one_clear_line(err, "out")
    assert (tmp_path / "out").read_text() == "here already"


def test_output_folder_cannot_be_created(medzsad, scan):
    code, _, err = medzsad("predict", scan, "-o", "/proc/medzsad/out")
    assert code == 2
    assert_one_clear_line(err, "/proc/medzsad/out")


@pytest.mark.parametrize(
    ("options", "mention"),
    [
        (("--model", "medzsad-maxi"), "medzsad-mini"),
        (("--model", "missing.safetensors"), "missing.safetensors"),
        (("--plane", "diagonal"), "axial"),
        (("--threshold", "high"), "otsu"),
        (("--modality", "pet-mr"), "mr"),
        (("--window", "kidney", "--modality", "ct"), "kidney"),
        (("--device", "abacus"), "abacus"),
    ],
)
def test_bad_options(medzsad, scan, tmp_path, options, mention):
    code, _, err = medzsad("predict", scan, "-o", tmp_path / "out", "--quiet", *options)
    assert code == 2
    assert_one_clear_line(err, mention)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "text", "foreign", "empty metadata"])
def test_corrupted_checkpoint(medzsad, scan, tmp_path, damage):
    import torch
    from safetensors.torch import save_file

    from medzsad.zoo.catalogue import find_entry

    path = tmp_path / "broken.safetensors"
    if damage == "cut":
        path.write_bytes(find_entry("medzsad-mini").path.read_bytes()[:100_000])
    elif damage == "text":
        path.write_text("not a checkpoint")
    elif damage == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    else:
        save_file(
            {"weight": torch.zeros(3)},
            path,
            metadata={"medzsad": '{"format": "medzsad-1", "method": "mini", "settings": {}, "training": {}}'},
        )
    code, _, err = medzsad("predict", scan, "-o", tmp_path / "out", "--quiet", "--model", path)
    assert code == 2
    assert_one_clear_line(err, "broken.safetensors")
    assert not (tmp_path / "out").exists()


def test_good_inputs_are_finished_and_bad_ones_listed(medzsad, scan, tmp_path):
    bad = constant(tmp_path)
    code, out, err = medzsad("predict", bad, scan, missing_file(tmp_path), "-o", tmp_path / "out")
    assert code == 2
    assert "scan" in out
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 2
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        "lesions.csv",
        "scan.json",
        "scan_anomaly.nii.gz",
        "scan_mask.nii.gz",
        "scan_overlay.png",
        "scores.csv",
    ]
