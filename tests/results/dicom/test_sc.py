"""DICOM Secondary Captures of the overlay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import write_series
from dicom_results import (
    IDENTITY,
    TAGS,
    headers,
    new_errors,
    pixels,
    predicted,
    regular_series,
    tilted_series,
)

from medzsad.results.montage import OUTLINE
from medzsad.results.prediction import ScanPrediction

pytest.importorskip("highdicom")


def saved(prediction: ScanPrediction, out: Path) -> list[Path]:
    return sorted(prediction.save(out, formats=("dicom-sc",))["dicom-sc"].iterdir())


@pytest.mark.parametrize("make", [regular_series, tilted_series])
def test_one_picture_for_each_image_at_its_place(tmp_path, make):
    prediction = predicted(make(tmp_path / "source"))
    files = saved(prediction, tmp_path)
    assert [file.name for file in files] == [f"{number:04d}.dcm" for number in range(1, 9)]
    captures = [pydicom.dcmread(file) for file in files]
    assert len({capture.SeriesInstanceUID for capture in captures}) == 1
    assert len({capture.SOPInstanceUID for capture in captures}) == 8
    for capture, header in zip(captures, headers(prediction), strict=True):
        assert (capture.Modality, capture.SOPClassUID) == ("OT", "1.2.840.10008.5.1.4.1.1.7")
        assert (capture.Rows, capture.Columns, capture.SamplesPerPixel) == (header.Rows, header.Columns, 3)
        assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
        np.testing.assert_allclose(capture.ImagePositionPatient, header.ImagePositionPatient, atol=1e-5)
        assert capture.PixelSpacing == header.PixelSpacing
        assert capture.PatientOrientation == ["L", "P"]
        assert capture.FrameOfReferenceUID == header.FrameOfReferenceUID
        assert capture.SeriesDescription.startswith("RESEARCH")
        for keyword, value in IDENTITY.items():
            assert capture[keyword].value == value
    assert new_errors(files[0], prediction.scan.frames[0].path) == set()


def test_the_picture_shows_scan_map_and_mask(tmp_path):
    source = write_series(tmp_path / "source", pixels((3, 60, 64)), [0, 2, 4], **TAGS)
    anomaly_map = np.zeros((64, 60, 3))
    anomaly_map[30:40, 35:50, 1] = 0.9
    prediction = predicted(source, anomaly_map)
    first, second, _ = (pydicom.dcmread(file).pixel_array for file in saved(prediction, tmp_path))
    free = (slice(25, None), slice(None, 40))  # of the notice and the colour bar
    assert np.ptp(first[free].astype(int), axis=-1).max() == 0  # grey where the map is zero
    outline = (second == OUTLINE).all(axis=-1)
    assert outline[35:50, 30:40][[0, -1]].all()
    assert outline[35:50, 30:40][:, [0, -1]].all()
    assert not outline[36:49, 31:39].any()
    assert not outline[25:35, :30].any()
    assert not outline[25:, :30].any()
    cyan = [
        np.count_nonzero(image[:35, :, 2].astype(int) - image[:35, :, 0] > 60) for image in (first, second)
    ]
    assert cyan[1] > cyan[0] + 5  # the candidate's number
    bar = second[15:45, -4].astype(int)
    assert np.ptp(bar, axis=-1).max() > 60  # the top of the colours
    assert np.ptp(second[40, 35].astype(int)) > 40
    notice = first[:25]
    assert (notice[..., 0] > notice[..., 2].astype(int) + 60).any()  # in amber


def test_an_older_folder_is_replaced(tmp_path):
    prediction = predicted(regular_series(tmp_path / "source"))
    saved(prediction, tmp_path / "out")
    (tmp_path / "out" / "source_sc" / "0099.dcm").write_bytes(b"of a longer series")
    assert len(saved(prediction, tmp_path / "out")) == 8
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["source_sc"]
