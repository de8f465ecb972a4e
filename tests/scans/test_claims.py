"""Files that claim more than they should are refused from their first bytes."""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
import time
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_factory import image, ramp, save
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medzsad.errors import BadInput
from medzsad.scans.claims import check_deflated, check_nifti
from medzsad.scans.find import find_scans
from medzsad.scans.readers import read_scan

ZEROS = bytes(1 << 20)


@pytest.fixture
def nifti(tmp_path) -> Path:
    voxels = np.random.default_rng(0).normal(100, 20, (12, 12, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "x.nii")
    return tmp_path / "x.nii"


def changed(path: Path, place: int, form: str, *values: float) -> bytearray:
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, place, *values)
    return content


@pytest.mark.parametrize(
    ("place", "form", "values", "message"),
    [
        (40, "<4h", (3, 30000, 30000, 30000), "pixels a slice"),
        (40, "<4h", (3, 2000, 2000, 32000), "slices"),
        (108, "<f", (np.inf,), "voxels begin at byte inf"),
        (108, "<f", (1e30,), "voxels begin at byte"),
        (280, "<f", (1e30,), "which cannot be|maps to no volume"),
        (292, "<f", (1e12,), "from the origin"),
        (112, "<2f", (1e30, 0), "values up to"),
        (112, "<2f", (1e-40, 0), "constant"),
    ],
)
def test_absurd_numbers_of_a_nifti_header(nifti, place, form, values, message) -> None:
    nifti.write_bytes(changed(nifti, place, form, *values))
    with pytest.raises(BadInput, match=message) as caught:
        read_scan(nifti)
    assert "\n" not in str(caught.value)


def test_gzip_bombs_are_refused_within_seconds(nifti, tmp_path) -> None:
    head = changed(nifti, 40, "<4h", 3, 900, 900, 900)[:352]
    path = tmp_path / "bomb.nii.gz"
    with gzip.open(path, "wb", 9) as file:
        file.write(head)
        for _ in range(1400):
            file.write(ZEROS)
    start = time.process_time()
    with pytest.raises(BadInput, match=r"would unpack to 1\.5 GB"):
        read_scan(path)
    with gzip.open(path, "wb", 9) as file:  # a sound scan, and gigabytes behind it
        file.write(nifti.read_bytes())
        for _ in range(200):
            file.write(ZEROS)
    with pytest.raises(BadInput, match="far more than its header says"):
        read_scan(path)
    assert time.process_time() - start < 20
    path.write_bytes(gzip.compress(nifti.read_bytes()))
    assert read_scan(path).shape == (12, 12, 6)
    assert check_nifti(path) < 1e8


def test_a_deflated_bomb_is_refused(tmp_path) -> None:
    dataset = image(ramp(1, 12, 12)[0].astype(np.int16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = save(dataset, tmp_path / "x.dcm").read_bytes()
    check_deflated(tmp_path / "x.dcm")
    start = 144 + int.from_bytes(content[140:144], "little")
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = pack.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS))
    body += b"".join(pack.compress(ZEROS) for _ in range(700)) + pack.flush()
    (tmp_path / "x.dcm").write_bytes(content[:start] + body)
    with pytest.raises(BadInput, match="would unpack to"):
        check_deflated(tmp_path / "x.dcm")
    with pytest.raises(BadInput, match="would unpack to"):
        read_scan(tmp_path / "x.dcm")


@pytest.mark.parametrize(
    "tags",
    [
        {"NumberOfFrames": 9_999_999},
        {"NumberOfFrames": 2**31 - 1},
        {"Rows": 60_000, "Columns": 60_000},
        {"PixelSpacing": [1e30, 1e30]},
        {"PixelSpacing": [1e-30, 1e-30]},
        {"ImagePositionPatient": [0, 0, 1e30]},
        {"RescaleSlope": 1e35},
    ],
)
def test_absurd_numbers_of_a_dicom_header(tmp_path, tags) -> None:
    path = save(image(ramp(1, 12, 12)[0].astype(np.int16), **tags), tmp_path / "x.dcm")
    start = time.process_time()
    with pytest.raises(BadInput) as caught:
        read_scan(path)
    assert time.process_time() - start < 5
    assert "\n" not in str(caught.value)


def test_a_compressed_frame_that_claims_more_than_the_header_is_not_decoded(tmp_path, monkeypatch) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    codestream = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + struct.pack(">4I", 60_000, 60_000, 0, 0) + bytes(100)
    dataset = image(ramp(1, 12, 12)[0].astype(np.int16))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].is_undefined_length = True
    monkeypatch.setattr("medzsad.scans.dicom.pixels._pixel_array", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(BadInput, match="compressed pixels of 60000 x 60000, but its header says 12 x 12"):
        read_scan(save(dataset, tmp_path / "x.dcm"))


def test_pipes_devices_loops_and_impossible_names(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe.nii", tmp_path / "pipe", "/dev/zero", "n" * 300 + ".nii", "a\0.nii"):
        with pytest.raises(BadInput):
            read_scan(path)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.nii").symlink_to("self.nii")
    start = time.process_time()
    with contextlib.suppress(BadInput):
        find_scans(tmp_path)
    assert time.process_time() - start < 5


def test_thousands_of_slices_with_nothing_to_see(nifti, tmp_path, monkeypatch) -> None:
    voxels = np.random.default_rng(0).normal(100, 20, (2, 2, 2000)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "thin.nii")
    with pytest.raises(BadInput, match="2000 slices of 2 x 2"):
        read_scan(tmp_path / "thin.nii")
    monkeypatch.setenv("MEDZSAD_MIN_SIDE", "1")
    assert read_scan(tmp_path / "thin.nii").shape == (2, 2, 2000)


@pytest.mark.parametrize("kind", [-1, 2, 99, 2**31 - 1])
def test_an_mgh_file_of_an_unknown_type_is_refused(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "a.mgh"
    nibabel.MGHImage(np.ones((4, 5, 6), np.float32), np.eye(4)).to_filename(path)
    path.write_bytes(changed(path, 20, ">i", kind))
    with pytest.raises(BadInput, match="unknown type"):
        read_scan(path)
