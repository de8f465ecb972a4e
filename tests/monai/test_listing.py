from __future__ import annotations

from pathlib import Path

import pytest

from medzsad.errors import BadInput
from medzsad.monai import labelled_scans_at, scans_at


def test_places_give_scans_with_names_of_their_own(heads: list[Path], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scan.nii.gz").write_bytes(heads[0].read_bytes())
    found = scans_at([tmp_path / "b", tmp_path / "a"])
    assert [item["name"] for item in found] == ["b_scan", "a_scan"]
    assert found[0]["image"] == str(tmp_path / "b" / "scan.nii.gz")
    assert scans_at(str(heads[0])) == [{"image": str(heads[0]), "name": "first"}]
    with pytest.raises(BadInput, match="does not exist"):
        scans_at(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no volumes in a layout"):
        labelled_scans_at(tmp_path / "a")


def test_people_in_one_folder_are_refused(tmp_path: Path) -> None:
    from dicom_factory import ramp, write

    for index in range(2):
        for k, pixels in enumerate(ramp(3)):
            tags = {"PatientID": f"P{index}", "SeriesInstanceUID": f"1.2.{index}"}
            write(tmp_path / f"{index}{k}.dcm", pixels, ImagePositionPatient=[0, 0, k], **tags)
    with pytest.raises(BadInput, match="several people or studies"):
        scans_at(tmp_path)
