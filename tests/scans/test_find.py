"""Which scans the files of a folder are, whatever their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import ENHANCED_CT_IMAGE, functional_group, image, ramp, save, write, write_series
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from medzsad.errors import BadInput
from medzsad.scans.find import ScanPlace, find_scans, locate_scans
from medzsad.scans.readers import read_scan

NO_PLACE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def person(number: int) -> dict[str, Any]:
    return {
        "PatientID": f"P{number}",
        "StudyInstanceUID": f"1.2.{number}",
        "SeriesInstanceUID": f"1.2.{number}.1",
    }


def photograph(path: Path, **tags: Any) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    return write(path, pixels, **({"Modality": "XC", "SOPClassUID": "1.2.3"} | NO_PLACE | tags))


def media_directory(path: Path) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.FileSetID = "CD"
    return save(dataset, path)


def enhanced(path: Path, depths: list[float], **tags: Any) -> Path:
    frames = ramp(len(depths)) + int(depths[0])
    dataset = image(frames, NumberOfFrames=len(depths), SOPClassUID=ENHANCED_CT_IMAGE, **NO_PLACE, **tags)
    dataset.SharedFunctionalGroupsSequence = Sequence(
        [functional_group(PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]})]
    )
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [functional_group(PlanePositionSequence={"ImagePositionPatient": [0, 0, z]}) for z in depths]
    )
    return save(dataset, path)


@pytest.mark.parametrize("name", ["dicomdir", "DICOMDIR", "DicomDir", "sub/dicomdir", "index"])
def test_a_disc_index_is_no_scan(tmp_path: Path, name: str) -> None:
    folders = [write_series(tmp_path / f"sub/pat{i}", ramp(3), [0, 2, 4], **person(i)) for i in range(3)]
    index = media_directory(tmp_path / name)
    assert find_scans(tmp_path) == folders
    assert find_scans(index) == folders


@pytest.mark.parametrize("name", ["aa.dcm", "zz.dcm"])
def test_a_series_and_images_of_their_own(tmp_path: Path, name: str) -> None:
    write_series(tmp_path, ramp(4), [0, 2, 4, 6])
    alone = write(tmp_path / name, ramp(1)[0], Modality="CR", SeriesInstanceUID="1.9", **NO_PLACE)
    stills = [photograph(tmp_path / f"m{i}.dcm", Modality="US", SeriesInstanceUID="1.8") for i in range(2)]
    assert find_scans(tmp_path) == sorted([tmp_path, alone, *stills])
    assert read_scan(tmp_path).shape[2] == 4


def test_photographs_of_several_people(tmp_path: Path) -> None:
    files = [photograph(tmp_path / f"{i}.dcm", **person(i)) for i in range(3)]
    assert find_scans(tmp_path) == files
    with pytest.raises(BadInput, match="3 separate images"):
        read_scan(tmp_path)
    assert read_scan(tmp_path, series="1.2.1.1").shape == (7, 6, 1)


def test_people_in_one_folder(tmp_path: Path) -> None:
    for i in range(2):
        for k, pixels in enumerate(ramp(4) + 1000 * i):
            place = {"ImagePositionPatient": [0, 0, 2.0 * k], "InstanceNumber": k + 1}
            write(tmp_path / f"{k}-{i}.dcm", pixels, **place, **person(i))
    places, _ = locate_scans(tmp_path)
    assert places == [ScanPlace(tmp_path, "1.2.0.1"), ScanPlace(tmp_path, "1.2.1.1")]
    assert len({place.named_after for place in places}) == 2
    scans = [read_scan(place.path, series=place.series) for place in places]
    assert [float(scan.voxels.min()) for scan in scans] == [0, 1000]
    assert any("2 series of 2 people" in note for note in scans[0].notes)


def test_a_person_below_another(tmp_path: Path) -> None:
    write_series(tmp_path, ramp(3), [0, 2, 4], **person(0))
    below = write_series(tmp_path / "below", ramp(5), [0, 2, 4, 6, 8], **person(1))
    places, _ = locate_scans(tmp_path)
    assert places == [ScanPlace(tmp_path, "1.2.0.1"), ScanPlace(below)]
    assert [read_scan(place.path, series=place.series).shape[2] for place in places] == [3, 5]


def test_a_series_in_two_folders_is_one(tmp_path: Path) -> None:
    write_series(tmp_path / "DIR0", ramp(3), [0, 2, 4])
    write_series(tmp_path / "DIR1", ramp(3) + 50, [6, 8, 10])
    assert find_scans(tmp_path) == [tmp_path]
    assert read_scan(tmp_path).shape[2] == 6


def test_multi_frame_files_that_share_a_volume(tmp_path: Path) -> None:
    for i in range(3):
        enhanced(tmp_path / f"parts/{i}.dcm", [4.0 * i, 4.0 * i + 2])
        enhanced(tmp_path / f"times/{i}.dcm", [0.0, 2.0, 4.0], SeriesInstanceUID="1.7", InstanceNumber=i)
    times = [tmp_path / f"times/{i}.dcm" for i in range(3)]
    assert find_scans(tmp_path) == [tmp_path / "parts", *times]
    scan = read_scan(tmp_path / "parts")
    assert scan.shape[2] == 6
    assert scan.spacing[2] == 2


def test_reports_and_captures_are_no_scans_but_said(tmp_path: Path) -> None:
    report = image(ramp(1)[0], Modality="SR")
    del report.PixelData, report.Rows
    save(report, tmp_path / "0report.dcm")
    alone = photograph(tmp_path / "photo.dcm")
    photograph(tmp_path / "capture.dcm", Modality="OT", SOPClassUID=CAPTURE)
    places, notes = locate_scans(tmp_path)
    assert places == [ScanPlace(alone)]
    assert notes == [
        "DICOM files that are no scans were left out: 1 x a secondary capture beside other images, "
        "1 x a structured report (SR)."
    ]
    alone.unlink()
    assert find_scans(tmp_path) == [tmp_path / "capture.dcm"]  # there is nothing else
    (tmp_path / "capture.dcm").unlink()
    with pytest.raises(BadInput, match=r"no scans \(.*structured report"):
        find_scans(tmp_path)


def test_links_that_lead_nowhere_are_listed(tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", ramp(3), [0, 2, 4])
    (series / "0004.dcm").symlink_to("gone.dcm")
    (series / "IM5").touch()
    for name in ("t1.nii.gz", "photo.png", "alone.dcm"):
        (tmp_path / name).symlink_to("gone")
    (tmp_path / "readme.txt").symlink_to("gone")  # whatever it was, it was no scan
    (tmp_path / "again").symlink_to(tmp_path)
    lost = [tmp_path / name for name in ("alone.dcm", "photo.png", "t1.nii.gz")]
    assert find_scans(tmp_path) == [*lost, series]
    for path in lost:
        with pytest.raises(BadInput, match="a link that leads nowhere"):
            read_scan(path)
    scan = read_scan(series)
    assert any("1 x a link that leads nowhere, 1 x an empty file" in note for note in scan.notes)


def test_a_series_whose_files_are_all_missing_fails_once(tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    for index in range(3):
        (tmp_path / f"ct/{index}.dcm").symlink_to("gone")
    write_series(tmp_path / "mr", ramp(3), [0, 2, 4])
    assert find_scans(tmp_path) == [tmp_path / "ct", tmp_path / "mr"]
    with pytest.raises(BadInput, match="3 x a link that leads nowhere"):
        read_scan(tmp_path / "ct")


def test_damaged_files_fail_alone_and_cost_no_series(tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", ramp(3), [0, 2, 4])
    for path in (tmp_path / "broken.dcm", series / "0000.dcm"):
        path.write_bytes(b"\0" * 128 + b"DICM" + b"\x08\x00\x18\x00UI\xff\xff1.2")
    assert find_scans(tmp_path) == [tmp_path / "broken.dcm", series]
    assert read_scan(series).shape[2] == 3
