"""Which files are which scan, found without decoding any."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_factory import ramp, write_series
from serve_process import write_scan

import medzsad
from medzsad.client import scan_files
from medzsad.client.connection import Part
from medzsad.client.inputs import ScanFiles


def test_a_folder_has_the_scans_that_the_command_line_finds(tmp_path: Path) -> None:
    from medzsad.scans.find import find_scans

    write_series(tmp_path / "ct", ramp(3), [0.0, 3.0, 6.0])
    (tmp_path / "b").mkdir()
    scan = write_scan(tmp_path / "b" / "case.nii.gz")
    write_scan(tmp_path / "b" / "pair.img")
    (tmp_path / "b" / ".hidden.nii").write_bytes(b"x")
    (tmp_path / "b" / "notes.txt").write_text("x")
    medzsad.predict(scan).save(tmp_path / "b", formats=("nifti", "json"))
    scans, failed = scan_files([tmp_path])
    assert failed == []
    assert sorted(found.source for found in scans) == sorted(find_scans(tmp_path))
    by_name = {found.name: found for found in scans}
    assert set(by_name) == {"ct", "case", "pair"}
    assert [part.name for part in by_name["pair"].parts] == ["file-000001.hdr", "file-000001.img"]
    assert [part.name for part in by_name["ct"].parts] == [f"file-{n:06d}.dcm" for n in (1, 2, 3)]


def test_what_holds_no_scan_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    _, failed = scan_files([tmp_path / "nothing", tmp_path / "missing"])
    assert [reason.partition(" ")[2] for _, reason in failed] == [
        "holds no scans; give a file or a folder with scans.",
        "does not exist; check the path.",
    ]


def test_the_same_file_twice_is_one_scan_and_like_names_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.nii").write_bytes(b"x")
    scans, _ = scan_files([tmp_path / "a/x.nii", tmp_path / "b/x.nii", tmp_path / "a/x.nii"])
    assert [scan.name for scan in scans] == ["a_x", "b_x"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("file-000002.dcm is damaged", "in/Doe.dcm is damaged"),
        ("the upload holds no scan", "in holds no scan"),
        ("options: no JSON", "options: no JSON"),
    ],
)
def test_messages_have_the_names_here(said: str, told: str) -> None:
    parts = (Part("file-000001.dcm", Path("in/a.dcm")), Part("file-000002.dcm", Path("in/Doe.dcm")))
    assert ScanFiles("in", Path("in"), parts).told(said) == told
