"""``medzsad predict`` of folders that hold all kinds of things."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from dicom_factory import image, ramp, save, write


def test_a_mixed_folder_is_several_scans_and_what_is_none_is_said(
    tmp_path: Path, medzsad: Callable[..., tuple[int, str, str]]
) -> None:
    folder = tmp_path / "disc"
    for index in range(2):
        for k, pixels in enumerate(ramp(3, 20, 20) + 1000 * index):
            place = {
                "ImagePositionPatient": [0, 0, 4.0 * k],
                "InstanceNumber": k + 1,
                "PatientID": f"P{index}",
            }
            write(folder / f"{k}{index}.dcm", pixels, **place, SeriesInstanceUID=f"1.2.{index}")
    alone = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    write(folder / "a.dcm", ramp(1, 20, 20)[0], Modality="DX", SeriesInstanceUID="1.3", **alone)
    (folder / "lost.nii.gz").symlink_to("gone")
    report = image(ramp(1)[0], Modality="SR")
    del report.PixelData, report.Rows
    save(report, folder / "reports/1.dcm")
    code, _, said = medzsad(
        "predict", folder, "-o", tmp_path / "out", "-m", "brightness", "--overlay", "none"
    )
    assert code == 2
    names = sorted(path.stem for path in (tmp_path / "out").glob("*.json"))
    assert names == ["a", "disc_1-2-0", "disc_1-2-1"]
    assert "lost.nii.gz is a link that leads nowhere" in said
    assert (
        said.count("1 x a structured report (SR)") == 2
    )  # for one scan of the folder, and "1 more scan: ..."
    assert "1 more scan: DICOM files without an image" in said
    notes = json.loads((tmp_path / "out/disc_1-2-1.json").read_text())["notes"]
    assert any("3 series of" in note for note in notes)
    assert "SECRET" not in said + json.dumps(notes)
