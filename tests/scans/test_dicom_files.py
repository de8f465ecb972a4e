"""Telling DICOM files from others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest
from dicom_factory import ramp, write, write_series

from medzsad.errors import BadInput
from medzsad.scans.dicom_files import dicom_files, holds_slices, is_dicom, read_header
from medzsad.scans.readers import read_scan

TEST_FILES = Path(pydicom.__file__).parent / "data/test_files"


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"\x89PNG\r\n\x1a\n" + b"\0" * 300, b"plain text " * 40, b"\0" * 400, b"\x1f\x8b" * 200],
)
def test_other_files_are_not_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert not is_dicom(tmp_path / "x")
    assert not is_dicom(tmp_path / "missing")


def test_dicom_with_any_name(tmp_path: Path) -> None:
    path = write(tmp_path / "IM000001", ramp(1)[0])
    assert is_dicom(path)
    assert is_dicom(TEST_FILES / "ExplVR_LitEndNoMeta.dcm")
    assert is_dicom(TEST_FILES / "rtstruct.dcm")


def test_files_are_found_below(tmp_path: Path) -> None:
    write_series(tmp_path / "a/b", ramp(2), [0, 1])
    (tmp_path / "a/readme.txt").write_text("hello")
    shutil.copy(tmp_path / "a/b/0001.dcm", tmp_path / "a/.hidden")
    shutil.copy(TEST_FILES / "dicomdirtests/DICOMDIR", tmp_path / "DICOMDIR")
    assert [path.name for path in dicom_files(tmp_path)] == ["0001.dcm", "0002.dcm"]


def test_slices_and_images_of_their_own(tmp_path: Path) -> None:
    alone = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    assert holds_slices(write(tmp_path / "ct.dcm", ramp(1)[0]))
    assert not holds_slices(write(tmp_path / "dx.dcm", ramp(1)[0], Modality="DX", **alone))
    assert not holds_slices(write(tmp_path / "mg.dcm", ramp(1)[0], Modality="MG"))


def test_damaged_header(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.dcm", ramp(1)[0]).read_bytes()
    (tmp_path / "b.dcm").write_bytes(whole[:200])
    with pytest.raises(BadInput, match=r"b\.dcm") as caught:
        read_scan(tmp_path / "b.dcm")
    assert "\n" not in str(caught.value)


def test_headers_hold_nothing_about_the_patient(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "a.dcm", ramp(1)[0]))
    assert "PatientName" not in header
    assert "PatientID" not in header
    assert "SeriesDescription" not in header
