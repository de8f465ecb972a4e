"""All DICOM results together: which are asked for, and those of real series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_results import (
    canonical,
    headers,
    new_errors,
    of_volume,
    pixel_places,
    predicted,
    ramp_of,
    ramp_on,
    require_volume_reader,
)

from medzsad.errors import BadInput
from medzsad.results.dicom.source_frames import source_frames
from medzsad.results.dicom.writers import parse_dicom
from medzsad.results.prediction import ScanPrediction
from medzsad.scans.readers import read_scan

highdicom = pytest.importorskip("highdicom")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, ()),
        ("pm", ("dicom-pm",)),
        ("sr", ("dicom-seg", "dicom-sr")),
        ("all", ("dicom-seg", "dicom-pm", "dicom-sr")),
        (" SC , Seg-Fractional,sc", ("dicom-seg-fractional", "dicom-sc")),
    ],
)
def test_what_is_asked_for(text, wanted):
    assert parse_dicom(text) == wanted


@pytest.mark.parametrize("text", ["", "seg,", "rtstruct", "seg pm"])
def test_what_is_not_there(text):
    with pytest.raises(BadInput, match="use seg, seg-fractional, pm, sr, sc, or all"):
        parse_dicom(text)


def test_without_highdicom_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BadInput, match=r'pip install "medzsad\[dicom\]"'):
        parse_dicom("seg")


@dataclass(frozen=True)
class Saved:
    """A real series with a map that is linear in the world, and the files of all its results."""

    prediction: ScanPrediction
    files: dict[str, Path]


@pytest.fixture(scope="module", params=["dicom_head_ct", "dicom_brain_mr"])
def real(request, shared, tmp_path_factory) -> Saved:
    folder = shared(f"data/{request.param}")
    scan = read_scan(folder)
    prediction = predicted(scan, ramp_on(scan), threshold=0.8)
    formats = (*parse_dicom("all,seg-fractional,sc"),)
    return Saved(prediction, prediction.save(tmp_path_factory.mktemp("out"), formats=formats))


def test_real_results_have_no_errors_of_their_own(real):
    source = real.prediction.scan.frames[0].path
    for kind, path in real.files.items():
        assert new_errors(path / "0001.dcm" if path.is_dir() else path, source) == set(), kind


def test_real_masks_lie_on_the_source(real):
    seg = highdicom.seg.segread(real.files["dicom-seg"])
    labels = seg.get_pixels_by_source_instance(
        [str(header.SOPInstanceUID) for header in headers(real.prediction)],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    frames = source_frames(real.prediction)
    assert frames.mask.any()
    np.testing.assert_array_equal(labels, frames.labels)


def test_real_maps_agree_at_the_world_positions_of_the_source(real):
    dataset = pydicom.dcmread(real.files["dicom-pm"])
    groups = dataset.PerFrameFunctionalGroupsSequence
    images = [group.DerivationImageSequence[0].SourceImageSequence[0] for group in groups]
    planes = {
        image.ReferencedSOPInstanceUID: (plane, group.PlanePositionSequence[0].ImagePositionPatient)
        for image, group, plane in zip(images, groups, dataset.pixel_array, strict=True)
    }
    assert len(planes) == len(real.prediction.scan.frames)
    for header in headers(real.prediction):
        plane, position = planes[header.SOPInstanceUID]
        np.testing.assert_allclose(plane, ramp_of(pixel_places(header)), atol=1e-4)
        np.testing.assert_allclose(position, header.ImagePositionPatient, atol=1e-5)


def test_real_volumes_come_back_as_they_were(real):
    if real.prediction.scan.details["geometry"]["resampled"]:
        pytest.skip("a tilted series is no volume to highdicom")
    require_volume_reader()
    wanted, affine = canonical(real.prediction.anomaly_map, real.prediction.affine)
    image = highdicom.imread(real.files["dicom-pm"])
    volumes = [
        of_volume(image.get_volume(dtype=np.float32, apply_real_world_transform=False)),
        of_volume(highdicom.seg.segread(real.files["dicom-seg"]).get_volume(combine_segments=True)),
    ]
    np.testing.assert_array_equal(volumes[0][0], wanted)
    np.testing.assert_array_equal(
        volumes[1][0] > 0, canonical(real.prediction.mask.astype(np.uint8), real.prediction.affine)[0] > 0
    )
    for _, found in volumes:
        np.testing.assert_allclose(found, affine, atol=1e-4)


def test_real_reports_list_the_candidates(real):
    report = highdicom.sr.srread(real.files["dicom-sr"]).content
    groups = report.get_volumetric_roi_measurement_groups()
    volumes = [group.get_measurements()[0].value for group in groups]
    assert volumes == pytest.approx([lesion.volume_ml for lesion in real.prediction.lesions], rel=1e-5)
    assert len(volumes) > 0


def test_real_patients_are_named_as_in_the_source(real):
    original = headers(real.prediction)[0]
    for path in real.files.values():
        result = pydicom.dcmread(path / "0001.dcm" if path.is_dir() else path, stop_before_pixels=True)
        for keyword in ("PatientName", "PatientID", "AccessionNumber", "StudyInstanceUID", "StudyDate"):
            assert result[keyword].value == original[keyword].value
        for keyword in ("PatientIdentityRemoved", "PatientBirthDate"):
            assert result.get(keyword) == original.get(keyword) or not original.get(keyword)
