"""Telling DICOM files from others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest
from dicom_factory import SERIES, ramp, write, write_series

from medzsad.errors import BadInput
from medzsad.scans.dicom.files import dicom_files, is_dicom, read_header, stands_alone
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
    found, unreadable = dicom_files(tmp_path)
    assert [path.name for path in found] == ["DICOMDIR", "0001.dcm", "0002.dcm"]
    assert unreadable == {}


def test_slices_and_images_of_their_own(tmp_path: Path) -> None:
    alone = {"ImagePositionPatient": None, "ImageOrientationPatient": None}

    def is_alone(**tags: object) -> bool:
        return stands_alone(read_header(write(tmp_path / "a.dcm", ramp(1)[0], **tags)))

    assert not is_alone()
    assert not is_alone(**alone)  # a CT slice, wherever it lies
    assert not is_alone(Modality="US")  # of a swept volume
    assert is_alone(Modality="MG")
    for modality in ("DX", "XC", "ES", "US", "OT"):
        assert is_alone(Modality=modality, SOPClassUID="1.2.3", **alone)
    assert is_alone(Modality=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.4", **alone)
    assert is_alone(Modality=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", **alone)


def test_damaged_header(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.dcm", ramp(1)[0]).read_bytes()
    (tmp_path / "b.dcm").write_bytes(whole[:200])
    with pytest.raises(BadInput, match=r"b\.dcm") as caught:
        read_scan(tmp_path / "b.dcm")
    assert "\n" not in str(caught.value)


def test_odd_values_of_the_patient_cost_no_image(tmp_path: Path) -> None:
    whole = write(
        tmp_path / "a.dcm", ramp(1)[0], SeriesNumber=12345678, PatientBirthDate="20000101"
    ).read_bytes()
    (tmp_path / "a.dcm").write_bytes(
        whole.replace(b"12345678", b"no digit").replace(b"20000101", b"some day")
    )
    assert read_header(tmp_path / "a.dcm").series_key.uid == SERIES
    assert read_scan(tmp_path).shape == (5, 6, 1)


def test_headers_hold_nothing_about_the_patient(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "a.dcm", ramp(1)[0]))
    assert "PatientName" not in header
    assert "PatientID" not in header
    assert "SeriesDescription" not in header
