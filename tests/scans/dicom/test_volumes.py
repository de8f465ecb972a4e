"""One volume of a series with several: never a mixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import functional_group, image, save, write, write_volumes
from pydicom.sequence import Sequence

from medzsad.errors import BadInput
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Scan

BY_NUMBER: dict[str, Any] = {}


def levels(scan: Scan) -> list[float]:
    """Of each plane the lowest value: 1000 x volume + slice."""
    return scan.voxels.min(axis=(0, 1)).tolist()


ATTRIBUTES = {
    "TemporalPositionIdentifier": lambda v, k: {"TemporalPositionIdentifier": v + 1},
    "EchoTime": lambda v, k: {"EchoTime": 10.0 * (v + 1)},
    "DiffusionBValue": lambda v, k: {"DiffusionBValue": 500.0 * v if v else None},  # b = 0 often lacks it
    "ImageType": lambda v, k: {"ImageType": ["ORIGINAL", "PRIMARY", "IMP"[v]]},
    "EchoTime and ImageType": lambda v, k: {
        "EchoTime": v // 2,
        "ImageType": ["ORIGINAL", "PRIMARY", "MP"[v % 2]],
    },
    "AcquisitionNumber": lambda v, k: {"AcquisitionNumber": v + 1},
    "TriggerTime": lambda v, k: {"TriggerTime": 50.0 * v + 0.3 * k},  # with the heart's jitter
    "AcquisitionTime": lambda v, k: {"AcquisitionTime": f"1200{v:02d}.{k}"},
    "InstanceNumber": lambda v, k: {},
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_gap_is_not_filled_from_another_volume(tmp_path: Path, name: str) -> None:
    folder = write_volumes(tmp_path / "case", ATTRIBUTES[name], missing=[(1, 3)])
    what = rf"3 volumes \(of 6, 5, 6 images\).* {name};.* `volume` 0 to `volume` 2"
    with pytest.raises(BadInput, match=what):
        read_scan(folder)
    scan = read_scan(folder, volume=1)
    assert levels(scan) == [1000, 1001, 1002, 1003, 1004, 1005]  # the fourth is interpolated
    assert any("1 slice is missing" in note for note in scan.notes)
    assert scan.details["volume"] == {"index": 1, "count": 3, "differ_in": name.split(" and ")}


@pytest.mark.parametrize("place", [0, 5])
def test_a_volume_without_its_first_or_last_slice(tmp_path: Path, place: int) -> None:
    folder = write_volumes(tmp_path / "case", lambda v, k: BY_NUMBER, missing=[(1, place)])
    scan = read_scan(folder, volume=1)
    assert levels(scan) == [1000 + k for k in range(6) if k != place]
    assert "It has 5 images, other volumes up to 6." in scan.notes
    assert levels(read_scan(folder, volume=2)) == [2000 + k for k in range(6)]


def test_a_gap_that_nothing_explains_is_refused(tmp_path: Path) -> None:
    folder = write_volumes(tmp_path / "case", lambda v, k: BY_NUMBER, missing=[(1, 3)], slice_by_slice=True)
    with pytest.raises(BadInput, match="up to 3 images at the same position"):
        read_scan(folder, volume=1)


@pytest.mark.parametrize("shift", [0.02, 0.7, 1.0, 50.0])
@pytest.mark.parametrize("name", ["AcquisitionNumber", "TemporalPositionIdentifier", "EchoTime"])
def test_volumes_that_lie_between_or_beside_each_other(tmp_path: Path, shift: float, name: str) -> None:
    folder = write_volumes(tmp_path / "case", ATTRIBUTES[name], volumes=2, shift=shift)
    with pytest.raises(BadInput, match=f"2 volumes .* {name}"):
        read_scan(folder)
    assert levels(read_scan(folder, volume=1)) == [1000 + k for k in range(6)]


@pytest.mark.parametrize("shift", [0.02, 0.7, 4.0])
def test_passes_that_only_their_numbers_tell_apart(tmp_path: Path, shift: float) -> None:
    folder = write_volumes(tmp_path / "case", lambda v, k: BY_NUMBER, volumes=2, shift=shift)
    assert levels(read_scan(folder, volume=0)) == [0, 1, 2, 3, 4, 5]


def test_acquisitions_that_make_one_volume(tmp_path: Path) -> None:
    def acquired(v: int, k: int) -> dict[str, Any]:
        return {"AcquisitionNumber": v + 1, "SliceThickness": thickness}

    thickness = 2.0
    scan = read_scan(write_volumes(tmp_path / "side by side", acquired, volumes=2, shift=12.0))
    assert levels(scan) == [*range(6), *range(1000, 1006)]
    thickness = 1.0
    scan = read_scan(write_volumes(tmp_path / "every second", acquired, volumes=2, shift=1.0))
    assert (scan.shape[2], scan.spacing[2]) == (12, 1.0)
    assert scan.notes == ()


def test_a_few_rescanned_slices_do_not_hide_the_volume(tmp_path: Path) -> None:
    missing = [(1, k) for k in (0, 1, 2, 5)]
    folder = write_volumes(tmp_path / "case", ATTRIBUTES["AcquisitionNumber"], volumes=2, missing=missing)
    scan = read_scan(folder)
    assert levels(scan) == [0, 1, 2, 3, 4, 5]
    assert any("2 images were left out" in note and "AcquisitionNumber" in note for note in scan.notes)
    assert levels(read_scan(folder, volume=1)) == [1003, 1004]


def test_slices_that_look_alike_in_all_volumes_stay(tmp_path: Path) -> None:
    folder = write_volumes(tmp_path / "case", ATTRIBUTES["TemporalPositionIdentifier"])
    for path in folder.glob("*.dcm"):
        if int(path.stem) % 6 == 1:  # the first slice of each volume
            number = int(path.stem)
            tags = {"TemporalPositionIdentifier": number // 6 + 1, "InstanceNumber": number, "Modality": "MR"}
            write(path, np.arange(20, dtype=np.int16).reshape(4, 5), **tags)
    assert levels(read_scan(folder, volume=2)) == [0, 2001, 2002, 2003, 2004, 2005]


def test_a_second_copy_is_no_second_volume(tmp_path: Path) -> None:
    def copied(v: int, k: int) -> dict[str, Any]:
        return {"ContentTime": f"12000{v}"}

    folder = write_volumes(tmp_path / "case", copied, volumes=1)
    for path in sorted(folder.glob("*.dcm")):
        number = int(path.stem)
        pixels = np.arange(20, dtype=np.int16).reshape(4, 5) + np.int16(number - 1)
        place = {"ImagePositionPatient": [0, 0, 2.0 * (number - 1)], "InstanceNumber": number}
        write(folder / f"copy{number}.dcm", pixels, Modality="MR", ContentTime="130000", **place)
    scan = read_scan(folder)
    assert levels(scan) == [0, 1, 2, 3, 4, 5]
    assert any("6 images were left out as exact duplicates" in note for note in scan.notes)


def test_stacks_of_a_multi_frame_file(tmp_path: Path) -> None:
    depths = [0.0, 2.0, 4.0, 60.0, 62.0, 64.0]
    frames = np.arange(6 * 20, dtype=np.int16).reshape(6, 4, 5)
    no_place = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    dataset = image(frames, NumberOfFrames=6, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1", **no_place)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        functional_group(
            PlanePositionSequence={"ImagePositionPatient": [0, 0, z]},
            PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            FrameContentSequence={"StackID": "AB"[z > 10]},
        )
        for z in depths
    )
    path = save(dataset, tmp_path / "stacks.dcm")
    with pytest.raises(BadInput, match=r"2 volumes \(of 3, 3 images\) that differ in StackID"):
        read_scan(path)
    assert levels(read_scan(path, volume=1)) == [60, 80, 100]


@pytest.mark.parametrize("gap", [0.0, 40.0])
def test_frames_of_reference_are_never_of_one_volume(tmp_path: Path, gap: float) -> None:
    def placed(v: int, k: int) -> dict[str, Any]:
        return {
            "FrameOfReferenceUID": f"1.2.{v}",
            "ImagePositionPatient": [0.0, 0.0, 2.0 * k + (12 + gap) * v],
        }

    folder = write_volumes(tmp_path / "case", placed, volumes=2)
    with pytest.raises(BadInput, match=r"2 volumes \(of 6, 6 images\) that differ in FrameOfReferenceUID"):
        read_scan(folder)
    assert levels(read_scan(folder, volume=1)) == [1000, 1001, 1002, 1003, 1004, 1005]
