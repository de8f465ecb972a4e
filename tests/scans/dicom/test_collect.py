"""Collecting the images of a folder, and choosing a series among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import AXIAL, ramp, write, write_series

from medzsad.errors import BadInput
from medzsad.scans.dicom.identity import read_identity
from medzsad.scans.find import locate_scans
from medzsad.scans.readers import read_scan

NO_UID = {"SeriesInstanceUID": None, "StudyInstanceUID": None}
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageOrientationPatient": [0] * 6}, "an ImageOrientationPatient that is no pair"),
        ({"ImageOrientationPatient": [*AXIAL[:3], *AXIAL[:3]]}, "an ImageOrientationPatient that is no pair"),
        ({"PixelSpacing": [0, 0]}, "a PixelSpacing that is not positive"),
        ({"PixelSpacing": [-1, 1]}, "a PixelSpacing that is not positive"),
    ],
)
@pytest.mark.parametrize("series", ["1.9", None])
def test_a_bad_header_costs_no_good_series(
    tmp_path: Path, tags: dict[str, Any], reason: str, series: str | None
) -> None:
    folder = write_series(tmp_path / "case", ramp(5), [0, 2, 4, 6, 8])
    place = {"ImagePositionPatient": [0, 0, 20.0], "InstanceNumber": 9}
    other = {"SeriesInstanceUID": series} if series else {}
    write(folder / "0stray.dcm", ramp(1)[0], **place, **tags, **other)
    scan = read_scan(folder)
    assert scan.shape[2] == 5
    assert any(f"left out: 1 x {reason}" in note for note in scan.notes)
    assert str(tmp_path) not in " ".join(scan.notes)


def test_a_series_with_more_bad_headers_than_good_ones_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "case", ramp(3), [0, 2, 4])
    for index in range(4):
        write(folder / f"bad{index}.dcm", ramp(1)[0], PixelSpacing=[0, 0])
    with pytest.raises(BadInput, match=r"bad0\.dcm holds a PixelSpacing"):
        read_scan(folder)


def test_captures_in_the_same_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "case", ramp(3), [0, 2, 4])
    write(folder / "0.dcm", ramp(1)[0], SOPClassUID=CAPTURE, ImagePositionPatient=[0, 0, 6])
    scan = read_scan(folder)
    assert scan.shape[2] == 3
    assert any("1 image was left out as secondary capture" in note for note in scan.notes)


@pytest.mark.parametrize(
    "tag", ["PatientID", "PatientName", "StudyDate", "SeriesNumber", "SeriesDescription", "StudyInstanceUID"]
)
def test_without_uid_what_else_differs_tells_series_apart(tmp_path: Path, tag: str) -> None:
    values = {"SeriesNumber": "12", "StudyDate": ("20200101", "20200102"), "StudyInstanceUID": ("1.1", "1.2")}
    for index in range(2):
        for k, pixels in enumerate(ramp(4)):
            place = {"ImagePositionPatient": [0, 0, 2.0 * k + 8 * index], "InstanceNumber": k + 1}
            tags = NO_UID | place | {tag: values.get(tag, "AB")[index]}
            write(tmp_path / f"{k}{index}.dcm", pixels + 1000 * index, **tags)
    places, _ = locate_scans(tmp_path)
    assert len(places) == (1 if tag.startswith("Series") else 2)  # two series of a study are one scan
    scans = [read_scan(tmp_path)]
    assert scans[0].shape[2] == 4
    (label,) = [note for note in scans[0].notes if "There are 2 series" in note]
    assert "secret" not in label.lower()
    other = label.rpartition("...")[2].partition(" ")[0]
    scans.append(read_scan(tmp_path, series=other))
    assert {float(np.ptp(scan.voxels.min(axis=(0, 1)))) for scan in scans} == {300}
    assert sorted(float(scan.voxels.min()) for scan in scans) == [0, 1000]
    assert scans[0].details["series_uid"] == ""
    assert read_identity(scans[0])["Patient ID"] in ("SECRET42", "A", "B")


def test_without_uid_sizes_and_directions_are_series(tmp_path: Path) -> None:
    for k, pixels in enumerate(ramp(4)):
        write(tmp_path / f"a{k}.dcm", pixels, **NO_UID, ImagePositionPatient=[0, 0, k], InstanceNumber=k)
    for k, pixels in enumerate(ramp(3, 8, 8)):
        tags = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": [0, k, 0]}
        write(tmp_path / f"b{k}.dcm", pixels, **NO_UID, **tags, InstanceNumber=k + 4)
    scan = read_scan(tmp_path)
    assert scan.shape == (5, 6, 4)
    assert read_scan(tmp_path, series="/2").shape == (8, 8, 3)


def test_without_uid_numbers_that_begin_again_are_refused(tmp_path: Path) -> None:
    for index in range(2):
        for k, pixels in enumerate(ramp(4)):
            place = {"ImagePositionPatient": [0, 0, 2.0 * k + 8 * index], "InstanceNumber": k + 1}
            write(tmp_path / f"{k}{index}.dcm", pixels + 1000 * index, **NO_UID, **place)
    with pytest.raises(BadInput, match="without SeriesInstanceUID whose InstanceNumbers repeat"):
        read_scan(tmp_path)


@pytest.mark.parametrize("tag", ["PatientID", "StudyInstanceUID", "SeriesNumber"])
def test_two_series_under_one_uid(tmp_path: Path, tag: str) -> None:
    for index in range(2):
        for k, pixels in enumerate(ramp(4)):
            place = {"ImagePositionPatient": [0, 0, 2.0 * k + 8 * index], "InstanceNumber": k + 1}
            write(tmp_path / f"{k}{index}.dcm", pixels + 1000 * index, **place, **{tag: "12"[index]})
    scans = [read_scan(place.path, series=place.series) for place in locate_scans(tmp_path)[0]]
    assert [scan.shape[2] for scan in scans] == ([4] if tag == "SeriesNumber" else [4, 4])
    assert len({float(scan.voxels.min()) for scan in scans}) == len(scans)
    people = " of 2 people" if tag == "PatientID" else ""
    assert any(f"There are 2 series{people}: " in note for note in scans[0].notes)
