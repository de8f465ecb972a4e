"""DICOM folders and files as scans."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import AXIAL, SERIES, ramp, write, write_series
from shared_data import Shared

from medzsad.errors import BadInput
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality, Scan

TEST_FILES = Path(pydicom.__file__).parent / "data/test_files"


def noted(scan: Scan, *words: str) -> bool:
    return any(all(word in note for word in words) for note in scan.notes)


def test_slices_are_sorted_by_position_not_name(tmp_path: Path) -> None:
    slices = ramp(5) - 50
    scan = read_scan(write_series(tmp_path / "case", slices, [0, 2, 4, 6, 8], PixelSpacing=[0.7, 0.9]))
    np.testing.assert_array_equal(scan.voxels, slices.transpose(2, 1, 0))
    # PixelSpacing is row spacing first; X runs along a row, from column to column.
    np.testing.assert_allclose(scan.spacing, (0.9, 0.7, 2.0))
    np.testing.assert_allclose(scan.affine[:3, 3], (10, 20, 0))
    np.testing.assert_allclose(np.diag(scan.affine)[:3], (-0.9, -0.7, 2.0))
    assert np.linalg.det(scan.affine) > 0
    assert (scan.modality, scan.modality_source, scan.is_2d) == (Modality.CT, "dicom", False)
    assert scan.name == "case"
    assert scan.notes == ()
    assert scan.voxels.dtype == np.float32


def test_nothing_names_the_patient(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "case", ramp(5), [0, 2, 6, 8, 10])
    write(folder / "x.dcm", ramp(1)[0], SeriesInstanceUID="1.2.3.4567890123")
    scan = read_scan(folder)
    told = json.dumps([scan.notes, scan.details, scan.header, scan.name])
    assert "secret" not in told.lower()
    with pytest.raises(BadInput) as caught:
        read_scan(folder, series="nonsense")
    assert "secret" not in str(caught.value).lower()


def test_two_series_in_one_folder(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "case", ramp(4), [0, 2, 4, 6])
    other = "1.2.3.99999999"
    for index in range(2):
        position = {"ImagePositionPatient": [0, 0, index], "SeriesInstanceUID": other}
        write(folder / f"other{index}.dcm", ramp(1)[0] + index, **position)
    scan = read_scan(folder)
    assert scan.shape[2] == 4
    assert noted(scan, "2 series", "the largest", "99999999 (CT, 2 images)")
    assert scan.details["series_uid"] == SERIES
    for chosen in (other, "99999999", "1.2.3.9"):
        scan = read_scan(folder, series=chosen)
        assert (scan.shape[2], scan.details["series_uid"]) == (2, other)
        assert noted(scan, "as chosen")
    with pytest.raises(BadInput, match=r"no series that `series` 7\.7 names"):
        read_scan(folder, series="7.7")
    with pytest.raises(BadInput, match=r"2 series that `series` 1\.2 names"):
        read_scan(folder, series="1.2")


def test_scout_under_the_same_uid(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "case", ramp(4), [0, 2, 4, 6])
    write(folder / "scout.dcm", ramp(1, 9, 9)[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    scan = read_scan(folder)
    assert scan.shape[2] == 4
    assert noted(scan, "1 image was left out as scout")
    alone = read_scan(folder / "scout.dcm")
    assert alone.shape == (9, 9, 1)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "another orientation"),
        ({"PixelSpacing": [0.5, 0.5]}, "another pixel spacing"),
        ({"pixels": ramp(1, 9, 9)[0]}, "another size"),
    ],
)
def test_strays_are_left_out_and_said(tmp_path: Path, tags: dict, reason: str) -> None:
    folder = write_series(tmp_path / "case", ramp(4), [0, 2, 4, 6])
    write(folder / "stray.dcm", **({"pixels": ramp(1)[0]} | tags))
    scan = read_scan(folder)
    assert scan.shape[2] == 4
    assert noted(scan, "1 image was left out", reason)


def test_duplicates(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "case", ramp(4), [0, 2, 4, 6])
    shutil.copy(folder / "0002.dcm", folder / "again.dcm")
    scan = read_scan(folder)
    assert scan.shape[2] == 4
    assert noted(scan, "1 image was left out", "duplicates")


def test_rescanned_position(tmp_path: Path) -> None:
    slices = ramp(6)
    folder = write_series(tmp_path / "case", slices, [0, 2, 4, 6, 8, 10])
    position = {"ImagePositionPatient": [-10.0, -20.0, 4.0], "InstanceNumber": 50}
    write(folder / "0000.dcm", slices[2] + 500, **position)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.voxels, slices.transpose(2, 1, 0))
    assert noted(scan, "1 image was left out", "their pixels differ")


@pytest.mark.parametrize(
    "key", ["EchoTime", "TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber"]
)
def test_several_volumes_need_a_choice(tmp_path: Path, key: str) -> None:
    slices = ramp(3)
    for volume in range(3):
        for index, pixels in enumerate(slices):
            tags = {"ImagePositionPatient": [0, 0, 3.0 * index], "InstanceNumber": 10 * index + volume}
            tags[key] = 10 * index + volume if key == "InstanceNumber" else volume + 1
            write(tmp_path / f"case/{volume}{index}.dcm", pixels + 1000 * volume, Modality="MR", **tags)
    with pytest.raises(BadInput, match=f"3 volumes .* {key}.*`volume` 0 to `volume` 2"):
        read_scan(tmp_path / "case")
    with pytest.raises(BadInput, match="`volume` 3 does not exist"):
        read_scan(tmp_path / "case", volume=3)
    scan = read_scan(tmp_path / "case", volume=1)
    np.testing.assert_array_equal(scan.voxels, (slices + 1000).transpose(2, 1, 0))
    assert noted(scan, "Volume 1 of 0 to 2")
    single = write_series(tmp_path / "single", slices, [0, 1, 2])
    assert read_scan(single, volume=0).shape[2] == 3
    with pytest.raises(BadInput, match="one volume"):
        read_scan(single, volume=1)


def test_missing_slice(tmp_path: Path) -> None:
    scan = read_scan(write_series(tmp_path / "case", ramp(7), [0, 2, 4, 8, 10, 12, 14]))
    assert scan.shape[2] == 8
    assert scan.spacing[2] == pytest.approx(2)
    np.testing.assert_allclose(scan.voxels[:, :, 3], ramp(7)[2:4].mean(axis=0).T)
    assert noted(scan, "1 slice is missing (between slices 3 and 4 by position)")
    assert noted(scan, "Outputs lie on this grid", "5 x 6 x 8 voxels of 1.00 x 1.00 x 2.00 mm")
    assert scan.details["geometry"]["resampled"]


def test_gantry_tilt_is_said(tmp_path: Path) -> None:
    tilt = np.radians(15)
    axes = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]
    scan = read_scan(
        write_series(tmp_path / "case", ramp(6), [0, 5, 10, 15, 20, 25], ImageOrientationPatient=axes)
    )
    assert noted(scan, "tilted by 15.0 degrees")
    unit = scan.affine[:3, :3] / scan.spacing
    np.testing.assert_allclose(unit.T @ unit, np.eye(3), atol=1e-9)


def test_slope_differs_from_slice_to_slice(tmp_path: Path) -> None:
    for index, slope in enumerate([1.0, 0.5, 2.0]):
        tags = {"ImagePositionPatient": [0, 0, index], "RescaleSlope": slope, "Modality": "PT"}
        write(tmp_path / f"pet/{index}.dcm", ramp(1)[0] + 4, **tags)
    scan = read_scan(tmp_path / "pet")
    assert scan.modality is Modality.GREY
    np.testing.assert_allclose(scan.voxels[1, 1] / scan.voxels[1, 1, 0], [1.0, 0.5, 2.0])


def test_non_images_beside_and_alone(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "case", ramp(3), [0, 2, 4])
    shutil.copy(TEST_FILES / "test-SR.dcm", folder / "report.dcm")
    (folder / "readme.txt").write_text("hello")
    scan = read_scan(folder)
    assert scan.shape[2] == 3
    assert noted(scan, "1 x a structured report (SR)")
    for name, words in (
        ("test-SR", "structured report"),
        ("rtstruct", "structure set"),
        ("liver_1frame", "SEG"),
    ):
        with pytest.raises(BadInput, match=words):
            read_scan(TEST_FILES / f"{name}.dcm")
    shutil.copy(TEST_FILES / "test-SR.dcm", tmp_path / "sr.dcm")
    (tmp_path / "only").mkdir()
    shutil.move(tmp_path / "sr.dcm", tmp_path / "only/sr.dcm")
    with pytest.raises(BadInput, match="no image"):
        read_scan(tmp_path / "only")


def test_dicomdir_reads_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    shutil.copytree(TEST_FILES / "dicomdirtests", folder)
    scan = read_scan(folder / "DICOMDIR")
    assert scan.name == "media"
    assert noted(scan, "13 series")


def test_radiograph(tmp_path: Path) -> None:
    tags = {
        "Modality": "DX",
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "PixelSpacing": None,
    }
    scan = read_scan(write(tmp_path / "1.2.3.4567", ramp(1)[0], **tags))
    assert scan.name == "1.2.3.4567"  # no suffix, but a UID
    assert scan.modality is Modality.XRAY
    assert not scan.has_geometry
    assert scan.spacing[:2] == (1.0, 1.0)
    assert noted(scan, "pixel spacing is not known")
    scan = read_scan(write(tmp_path / "a.dcm", ramp(1)[0], ImagerPixelSpacing=[0.2, 0.1], **tags))
    assert scan.has_geometry
    assert scan.spacing[:2] == pytest.approx((0.1, 0.2))
    assert noted(scan, "detector")
    np.testing.assert_allclose(scan.affine[:3, :2], [[-0.1, 0], [0, 0], [0, -0.2]])


def test_radiographs_of_one_series_are_no_volume(tmp_path: Path) -> None:
    tags = {"Modality": "DX", "ImagePositionPatient": None, "ImageOrientationPatient": None}
    for index in range(2):
        write(tmp_path / f"{index}.dcm", ramp(1)[0] + index, **tags)
    with pytest.raises(BadInput, match="2 separate images"):
        read_scan(tmp_path)


def test_slices_without_position(tmp_path: Path) -> None:
    slices = ramp(4)
    for index in range(4):
        tags = {"ImagePositionPatient": None, "SliceLocation": 3.0 * index, "InstanceNumber": 9 - index}
        write(tmp_path / f"located/{9 - index}.dcm", slices[index], **tags)
        write(tmp_path / f"numbered/{9 - index}.dcm", slices[index], **(tags | {"SliceLocation": None}))
    located = read_scan(tmp_path / "located")
    np.testing.assert_array_equal(located.voxels, slices.transpose(2, 1, 0))
    assert located.spacing[2] == 3
    assert noted(located, "SliceLocation")
    numbered = read_scan(tmp_path / "numbered")
    np.testing.assert_array_equal(numbered.voxels, slices[::-1].transpose(2, 1, 0))
    assert noted(numbered, "InstanceNumber")
    assert not numbered.has_geometry


@pytest.mark.parametrize("number", [None, 1])
def test_slices_without_position_and_number(tmp_path: Path, number: int | None) -> None:
    slices = ramp(12)
    for index, pixels in enumerate(slices):
        write(tmp_path / f"IM{index + 1}", pixels, ImagePositionPatient=None, InstanceNumber=number)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, slices.transpose(2, 1, 0))
    assert noted(scan, "no InstanceNumber of their own", "the order of their file names")
    assert not noted(scan, "sorted by InstanceNumber")


def test_numbers_that_do_not_say_the_order_are_refused(tmp_path: Path) -> None:
    for index, pixels in enumerate(ramp(6)):
        number = 50 - index if index % 2 else None
        write(tmp_path / f"IM{index + 1}", pixels, ImagePositionPatient=None, InstanceNumber=number)
    with pytest.raises(BadInput, match="3 have no InstanceNumber"):
        read_scan(tmp_path)


@pytest.mark.parametrize("key", ["InstanceNumber", "SliceLocation"])
def test_echoes_without_position_are_two_volumes(tmp_path: Path, key: str) -> None:
    for index, pixels in enumerate(ramp(8)):
        place = {"ImagePositionPatient": None, "InstanceNumber": None, "Modality": "MR"}
        place[key] = index if key == "InstanceNumber" else index % 4
        write(tmp_path / f"{index}", pixels, EchoTime=1 + index // 4, **place)
    with pytest.raises(BadInput, match=r"2 volumes .* EchoTime"):
        read_scan(tmp_path)
    np.testing.assert_array_equal(read_scan(tmp_path, volume=1).voxels, ramp(8)[4:].transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("directions", "parallel", "kind"), [(12, 1, "radial"), (12, 2, "radial"), (3, 1, "scouts")]
)
def test_images_in_many_directions_are_no_volume(
    tmp_path: Path, directions: int, parallel: int, kind: str
) -> None:
    for index in range(directions * parallel):
        angle = np.pi * (index // parallel) / directions
        along = np.array([np.cos(angle), np.sin(angle), 0])
        normal = np.array([-along[1], along[0], 0])
        tags = {
            "ImageOrientationPatient": [*along, 0, 0, -1],
            "ImagePositionPatient": list(-9 * along + index % parallel * normal),
        }
        write(tmp_path / f"{index}.dcm", ramp(1)[0] + index, Modality="MR", **tags)
    count = directions * parallel
    with pytest.raises(BadInput, match=rf"{count} images in {directions} directions .*{kind}"):
        read_scan(tmp_path)
    assert read_scan(tmp_path / "1.dcm").shape == (5, 6, 1)


def test_scouts_of_many_directions_do_not_hide_a_small_scan(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "case", ramp(3), [0, 2, 4])
    for index in range(9):
        along = [float(np.cos(index)), float(np.sin(index)), 0]
        tags = {
            "ImageOrientationPatient": [*along, 0, 0, -1],
            "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
        }
        write(folder / f"scout{index}.dcm", ramp(1)[0], **tags)
    assert read_scan(folder).shape[2] == 3


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (0.4685, 0.46849, True),  # printed with five digits
        (0.47, 0.4685, True),  # and with two
        (0.46849, 0.46851, True),
        (1, 0.9999, True),
        (0.488281, 0.4931, False),
        (1, 0.98, False),
    ],
)
def test_printed_digits_of_the_pixel_spacing(tmp_path: Path, one: float, other: float, is_same: bool) -> None:
    for index, pixels in enumerate(ramp(6)):
        spacing = [one] * 2 if index % 2 else [other] * 2
        write(tmp_path / f"{index}.dcm", pixels, ImagePositionPatient=[0, 0, index], PixelSpacing=spacing)
    scan = read_scan(tmp_path)
    assert scan.shape[2] == (6 if is_same else 3)
    assert noted(scan, "another pixel spacing") is not is_same
    if is_same:
        assert scan.spacing[0] == pytest.approx(max(one, other, key=lambda value: len(str(value))), rel=1e-4)


def test_no_modality_is_guessed_and_said(tmp_path: Path) -> None:
    scan = read_scan(write_series(tmp_path / "case", ramp(3), [0, 1, 2], Modality=None))
    assert (scan.modality, scan.modality_source) == (Modality.MR, "guessed")
    assert noted(scan, "guessed")


def test_broken_orientation(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", ramp(1)[0], ImageOrientationPatient=[*AXIAL[:3], *AXIAL[:3]])
    with pytest.raises(BadInput, match="perpendicular"):
        read_scan(path)


def test_ct_that_is_no_hu_is_said(tmp_path: Path) -> None:
    assert noted(read_scan(write_series(tmp_path / "case", ramp(3), [0, 1, 2])), "may not be HU")


def test_colour_screenshot_is_no_ct(tmp_path: Path) -> None:
    scan = read_scan(
        write(tmp_path / "a.dcm", np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8))
    )
    assert scan.modality is Modality.RGB
    assert scan.voxels.shape == (7, 6, 1, 3)


def test_real_head_ct(shared: Shared) -> None:
    scan = read_scan(shared("data/dicom_head_ct", files=28))
    assert scan.modality is Modality.CT
    assert scan.shape == (512, 611, 37)
    assert scan.spacing == pytest.approx((0.488, 0.488, 4.0), abs=0.01)
    assert noted(scan, "tilted by 18.5 degrees")
    assert noted(scan, "unevenly spaced (1.1 to 7.0 mm)")
    assert noted(scan, "512 x 611 x 37")
    geometry = scan.details["geometry"]
    assert geometry["acquired_slices"] == 28
    # The first slice keeps its place: its pixels reappear, shifted, in the first plane.
    first = pydicom.dcmread(shared("data/dicom_head_ct/01.dcm"))
    row, column = 200, 300
    world = np.array(first.ImagePositionPatient) + np.array(
        [
            column * first.PixelSpacing[1],
            *(row * first.PixelSpacing[0] * np.array(first.ImageOrientationPatient[4:])),
        ]
    )
    index = np.linalg.inv(scan.affine) @ [*(world * (-1, -1, 1)), 1]
    assert index[2] == pytest.approx(0, abs=1e-3)
    low, part = int(np.floor(index[1])), index[1] % 1
    expected = (1 - part) * scan.voxels[300, low, 0] + part * scan.voxels[300, low + 1, 0]
    neighbours = first.pixel_array[row - 1 : row + 2, column]
    assert neighbours.min() - 1 <= expected <= neighbours.max() + 1


def test_real_brain_mr(shared: Shared) -> None:
    folder = shared("data/dicom_brain_mr", files=64)
    scan = read_scan(folder)
    assert scan.shape == (256, 256, 64)
    assert scan.modality is Modality.MR
    assert scan.notes == ()
    assert not scan.details["geometry"]["resampled"]
    for path in sorted(folder.glob("*.dcm"))[::13]:
        dataset = pydicom.dcmread(path)
        origin = np.linalg.inv(scan.affine) @ [*(np.array(dataset.ImagePositionPatient) * (-1, -1, 1)), 1]
        np.testing.assert_allclose(origin[:2], 0, atol=1e-3)
        np.testing.assert_array_equal(scan.voxels[:, :, round(origin[2])].T, dataset.pixel_array)


def test_slices_without_a_position_among_others_are_said(tmp_path: Path) -> None:
    write_series(tmp_path, ramp(6), [0, 2, 4, 6, 8, 10])
    for number in (3, 4):
        write(tmp_path / f"{number:04d}.dcm", ramp(1)[0], ImagePositionPatient=None, InstanceNumber=number)
    scan = read_scan(tmp_path)
    assert noted(scan, "2 images were left out for no position, unlike the other 4")
    assert noted(scan, "2 slices are missing")
