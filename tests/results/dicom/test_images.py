"""DICOM Segmentations, read back with highdicom."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import ENHANCED_CT_IMAGE, functional_group, write
from dicom_results import (
    IDENTITY,
    TAGS,
    canonical,
    headers,
    new_errors,
    of_volume,
    pixel_places,
    pixels,
    predicted,
    ramp_of,
    ramp_on,
    regular_series,
    require_volume_reader,
    tilted_series,
)

from medzsad.errors import BadInput
from medzsad.results.prediction import FORMATS, ScanPrediction
from medzsad.scans.readers import read_scan

highdicom = pytest.importorskip("highdicom")


def saved(prediction: ScanPrediction, out: Path, kind: str = "seg") -> Path:
    return prediction.save(out, formats=(f"dicom-{kind}",))[f"dicom-{kind}"]


def on_source(seg: highdicom.seg.Segmentation, prediction: ScanPrediction) -> np.ndarray:
    """Labels on the source's images, along the stack."""
    return seg.get_pixels_by_source_instance(
        [str(header.SOPInstanceUID) for header in headers(prediction)],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )


def test_the_mask_and_its_place_come_back(tmp_path):
    require_volume_reader()
    prediction = predicted(regular_series(tmp_path / "source"))
    path = saved(prediction, tmp_path)
    assert path.name == "source_seg.dcm"
    seg = highdicom.seg.segread(path)
    volume = seg.get_volume(combine_segments=True)
    array, affine = of_volume(volume)
    wanted, wanted_affine = canonical(prediction.mask.astype(np.uint8), prediction.affine)
    np.testing.assert_array_equal(array > 0, wanted)
    np.testing.assert_allclose(affine, wanted_affine, atol=1e-5)
    assert volume.frame_of_reference_uid == TAGS["FrameOfReferenceUID"]
    np.testing.assert_array_equal(on_source(seg, prediction).transpose(2, 1, 0) > 0, prediction.mask)


def test_segments_are_the_candidates(tmp_path):
    prediction = predicted(regular_series(tmp_path / "source"))
    seg = highdicom.seg.segread(saved(prediction, tmp_path))
    assert seg.number_of_segments == len(prediction.lesions) + 1
    labels = on_source(seg, prediction)
    for number, lesion in enumerate(prediction.lesions, start=1):
        description = seg.get_segment_description(number)
        assert np.count_nonzero(labels == number) == lesion.voxels
        assert description.tracking_id == f"candidate {number}"
        assert description.algorithm_type.value == "AUTOMATIC"
        assert description.segmented_property_category.value == "49755003"
        assert description.segmented_property_type.value == "52988006"
        assert description.anatomic_regions[0].meaning == "Head"
        algorithm = description.algorithm_identification
        assert (algorithm.name, algorithm.family.meaning) == ("medzsad", "Artificial Intelligence")
        assert algorithm.parameters["threshold"] == "0.6"
    assert seg.get_segment_description(3).SegmentLabel == "Other suspicious voxels"
    assert len({item.get("TrackingUID") for item in seg.SegmentSequence}) == 3


def test_identity_and_place_are_the_sources(tmp_path):
    source = regular_series(tmp_path / "source", Laterality="L", PatientSex="X")
    seg = pydicom.dcmread(saved(predicted(source), tmp_path))
    for keyword, value in (TAGS | {"Laterality": "L", "PatientSex": "X"}).items():
        if keyword != "SeriesNumber":
            assert seg[keyword].value == value, keyword
    assert seg.SeriesNumber == 301
    assert seg.StudyInstanceUID == pydicom.dcmread(next(source.iterdir())).StudyInstanceUID
    assert seg.SeriesDescription.startswith("RESEARCH")
    assert seg.ContentLabel == "RESEARCH"


@pytest.mark.parametrize("kind", ["seg", "seg-fractional"])
def test_nothing_new_is_wrong(tmp_path, kind):
    source = regular_series(tmp_path / "source")
    assert new_errors(saved(predicted(source), tmp_path, kind), next(source.iterdir())) == set()


def test_probabilities_come_back(tmp_path):
    require_volume_reader()
    prediction = predicted(regular_series(tmp_path / "source"))
    seg = highdicom.seg.segread(saved(prediction, tmp_path, "seg-fractional"))
    assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    array, affine = of_volume(seg.get_volume(segment_numbers=[1]))
    wanted, wanted_affine = canonical(prediction.anomaly_map, prediction.affine)
    np.testing.assert_allclose(array.squeeze(), wanted, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(affine, wanted_affine, atol=1e-5)


def test_one_slice_is_enough(tmp_path):
    source = regular_series(tmp_path / "source")
    for path in sorted(source.iterdir())[1:]:
        path.unlink()
    prediction = predicted(source, np.pad(np.full((5, 6, 1), 0.9), ((9, 6), (8, 8), (0, 0))))
    seg = highdicom.seg.segread(saved(prediction, tmp_path))
    np.testing.assert_array_equal(on_source(seg, prediction).transpose(2, 1, 0) > 0, prediction.mask)


def test_an_empty_mask_is_an_empty_segment(tmp_path):
    prediction = predicted(regular_series(tmp_path / "source"), threshold=0.95)
    path = saved(prediction, tmp_path)
    assert highdicom.seg.segread(path).number_of_segments == 1
    assert not pydicom.dcmread(path).pixel_array.any()


def test_large_masks_leave_empty_images_out(tmp_path, monkeypatch):
    monkeypatch.setattr("medzsad.results.dicom.images.WHOLE_GRID_BYTES", 1)
    prediction = predicted(regular_series(tmp_path / "source"))
    seg = highdicom.seg.segread(saved(prediction, tmp_path))
    assert seg.NumberOfFrames < 3 * prediction.scan.shape[2]
    np.testing.assert_array_equal(on_source(seg, prediction).transpose(2, 1, 0) > 0, prediction.mask)


def test_a_tilted_series_is_marked_on_its_own_slices(tmp_path):
    scan = read_scan(tilted_series(tmp_path / "source"))
    prediction = predicted(scan, ramp_on(scan), threshold=0.51)
    path = saved(prediction, tmp_path)
    seg = highdicom.seg.segread(path)
    positions = {tuple(item.PlanePositionSequence[0].ImagePositionPatient) for item in seg[(0x5200, 0x9230)]}
    assert positions == {tuple(header.ImagePositionPatient) for header in headers(prediction)}
    from medzsad.results.dicom.source_frames import source_frames

    np.testing.assert_array_equal(on_source(seg, prediction) > 0, source_frames(prediction).mask)
    assert new_errors(path, next((tmp_path / "source").iterdir())) == set()


def test_runs_with_one_result_have_one_uid(tmp_path):
    source = regular_series(tmp_path / "source")
    uids = [pydicom.dcmread(saved(predicted(source), tmp_path / out)).SOPInstanceUID for out in "ab"]
    other = pydicom.dcmread(saved(predicted(source, threshold=0.65), tmp_path / "c"))
    assert uids[0] == uids[1] != other.SOPInstanceUID
    assert uids[0].startswith("2.25.")
    assert len(uids[0]) <= 64


def test_frames_of_a_multi_frame_file_are_referred_to_by_number(tmp_path):
    depths = [6.0, 0.0, 4.0, 2.0]
    shared = functional_group(
        PixelMeasuresSequence={"PixelSpacing": [1.0, 1.0], "SliceThickness": 2.0},
        PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    )
    tags = {
        "SOPClassUID": ENHANCED_CT_IMAGE,
        "NumberOfFrames": 4,
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "SharedFunctionalGroupsSequence": pydicom.Sequence([shared]),
        "PerFrameFunctionalGroupsSequence": pydicom.Sequence(
            functional_group(PlanePositionSequence={"ImagePositionPatient": [0.0, 0.0, z]}) for z in depths
        ),
    }
    source = write(tmp_path / "many.dcm", pixels((4, 22, 20)), **(TAGS | tags))
    prediction = predicted(source)
    seg = highdicom.seg.segread(saved(prediction, tmp_path / "out"))
    for item in seg[(0x5200, 0x9230)]:
        number = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert item.PlanePositionSequence[0].ImagePositionPatient[2] == depths[number - 1]
    require_volume_reader()
    array, affine = of_volume(seg.get_volume(combine_segments=True))
    wanted, wanted_affine = canonical(prediction.mask.astype(np.uint8), prediction.affine)
    np.testing.assert_array_equal(array > 0, wanted)
    np.testing.assert_allclose(affine, wanted_affine, atol=1e-5)


def test_radiographs_need_no_place_in_the_patient(tmp_path):
    tags = IDENTITY | {"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "ImageLaterality": "R"}
    tags |= {"ImagePositionPatient": None, "ImageOrientationPatient": None, "SliceThickness": None}
    source = write(tmp_path / "chest.dcm", np.abs(pixels((1, 60, 50))[0]).astype(np.uint16), **tags)
    prediction = predicted(source, np.pad(np.full((6, 8, 1), 0.9), ((10, 34), (20, 32), (0, 0))))
    path = saved(prediction, tmp_path / "out")
    seg = highdicom.seg.segread(path)
    assert seg.ImageLaterality == "R"
    np.testing.assert_array_equal(seg.pixel_array.squeeze() > 0, prediction.mask[:, :, 0].T)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
@pytest.mark.parametrize(
    ("characters", "name"),
    [("ISO_IR 100", "M\xfcller^J\xf6rg"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce")],
)
def test_odd_identities_are_carried_over_and_not_quoted(tmp_path, capfd, caplog, characters, name):
    odd = {
        "SpecificCharacterSet": characters,
        "PatientName": name,
        "PatientBirthDate": "1970??",
        "PatientSex": "W",
    }
    prediction = predicted(regular_series(tmp_path / "source", **odd))
    caplog.clear()  # of making the source
    files = prediction.save(tmp_path, formats=("dicom-seg", "dicom-pm", "dicom-sr", "dicom-sc"))
    captured = capfd.readouterr()
    told = captured.out + captured.err + caplog.text
    assert told == ""
    for path in (*list(files.values())[:3], files["dicom-sc"] / "0001.dcm"):
        dataset = pydicom.dcmread(path)
        assert dataset.PatientName == name
        assert (dataset.PatientBirthDate, dataset.PatientSex) == ("1970??", "W")
        assert dataset.SpecificCharacterSet == characters


@pytest.mark.filterwarnings("ignore:.*(maximum|Invalid value)")
def test_warnings_tell_nothing_of_the_patient(tmp_path):
    long = {"PatientName": "Secret^Patient" * 9, "AccessionNumber": "SECRETACC" * 4, "StudyTime": "noon"}
    prediction = predicted(regular_series(tmp_path / "source", **long))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        files = prediction.save(tmp_path, formats=(*FORMATS, "dicom-seg", "dicom-sr", "dicom-pm", "dicom-sc"))
    assert [str(warning.message) for warning in caught] == []
    assert pydicom.dcmread(files["dicom-sr"]).PatientName == long["PatientName"]


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID"])
def test_sources_that_cannot_be_referred_to_are_refused(tmp_path, keyword):
    source = regular_series(tmp_path / "source", **{keyword: None})
    with pytest.raises(BadInput, match=keyword):
        saved(predicted(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def planes_by_source(path: Path) -> dict[str, np.ndarray]:
    """Each plane's values by the UID of the image that it refers to."""
    dataset = pydicom.dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    uids = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for group in groups
    ]
    return dict(zip(uids, dataset.pixel_array, strict=True))


def test_the_map_and_its_place_come_back(tmp_path):
    require_volume_reader()
    prediction = predicted(regular_series(tmp_path / "source"))
    image = highdicom.imread(saved(prediction, tmp_path, "pm"))
    array, affine = of_volume(image.get_volume(dtype=np.float32, apply_real_world_transform=False))
    wanted, wanted_affine = canonical(prediction.anomaly_map, prediction.affine)
    np.testing.assert_array_equal(array, wanted)
    np.testing.assert_allclose(affine, wanted_affine, atol=1e-5)


def test_what_it_says_of_itself(tmp_path):
    source = regular_series(tmp_path / "source")
    path = saved(predicted(source), tmp_path, "pm")
    dataset = pydicom.dcmread(path)
    assert dataset.ContentQualification == "RESEARCH"
    assert dataset.SeriesDescription == "RESEARCH medzsad: anomaly map"
    for keyword, value in IDENTITY.items():
        assert dataset[keyword].value == value
    assert dataset.PatientPosition == "HFS"
    mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert new_errors(path, next(source.iterdir())) == set()


def test_images_without_a_place_are_refused(tmp_path):
    tags = IDENTITY | {"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}
    tags |= {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    source = write(tmp_path / "chest.dcm", np.arange(3000, dtype=np.uint16).reshape(60, 50), **tags)
    prediction = predicted(source, np.full((50, 60, 1), 0.1))
    with pytest.raises(BadInput, match="no place in the patient, which a Parametric Map must have"):
        saved(prediction, tmp_path / "out", "pm")
    assert not (tmp_path / "out").exists()


def test_a_tilted_series_is_mapped_on_its_own_slices(tmp_path):
    scan = read_scan(tilted_series(tmp_path / "source"))
    prediction = predicted(scan, ramp_on(scan))
    planes = planes_by_source(saved(prediction, tmp_path, "pm"))
    for header in headers(prediction):
        np.testing.assert_allclose(planes[header.SOPInstanceUID], ramp_of(pixel_places(header)), atol=2e-6)


def test_results_are_no_scans(tmp_path):
    folder = regular_series(tmp_path / "source")
    prediction = predicted(folder)
    prediction.save(folder, formats=("dicom-pm", "dicom-sr", "dicom-sc"))
    scan = read_scan(folder)
    assert scan.details["series_uid"] == prediction.scan.details["series_uid"]
    np.testing.assert_array_equal(scan.voxels, prediction.scan.voxels)
