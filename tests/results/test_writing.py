from __future__ import annotations

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from PIL import Image
from report_cases import make_picture, make_volume

from medzsad.errors import BadInput, OutputNotWritable
from medzsad.results.html.report import render_html_report
from medzsad.results.prediction import FORMATS, ScanPrediction, SliceScore
from medzsad.results.report import report
from medzsad.results.writing import prepare_folder
from medzsad.scans.affines import LPS_TO_RAS
from medzsad.scans.find import find_scans
from medzsad.scans.intensity import intensity_scaling
from medzsad.scans.own_results import ENDINGS, mark_of, may_be_replaced
from medzsad.scans.readers import read_scan
from medzsad.scans.slices import Plane


@pytest.fixture
def image_prediction(tmp_path) -> ScanPrediction:
    """A prediction for a small 2D grey image."""
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    scan = read_scan(tmp_path / "photo.png")
    anomaly_map = np.zeros(scan.shape, np.float32)
    anomaly_map[10:20, 5:10] = 0.75
    return ScanPrediction(
        scan=scan,
        anomaly_map=anomaly_map,
        score=0.7,
        slice_scores=[SliceScore(Plane.CORONAL, 2, 0, 0.0, 0.7, 0.6)],
        threshold=0.5,
        threshold_rule="0.5",
        planes=(Plane.CORONAL,),
        scaling=intensity_scaling(scan),
        settings={"model": "test", "method": "test", "detector": {}, "plane": "auto"},
    )


def test_images_get_png_results(image_prediction, tmp_path):
    files = image_prediction.save(tmp_path / "out")
    anomaly = np.asarray(Image.open(files["anomaly"]))
    mask = np.asarray(Image.open(files["mask"]))
    assert anomaly.shape == mask.shape == (20, 30)
    assert anomaly.dtype == np.uint16
    assert anomaly[7, 15] == round(0.75 * 65535)
    assert mask[7, 15] == 255
    assert mask.sum() == 255 * 50
    report = json.loads(files["json"].read_text())
    assert report["scan"]["spacing_mm"] is None
    assert report["lesions"][0]["volume_ml"] is None
    assert report["lesions"][0]["voxels"] == 50


def test_a_failure_leaves_nothing_behind(image_prediction, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medzsad.results.writing.save_overlay", full)
    with pytest.raises(OutputNotWritable, match="No space left"):
        image_prediction.save(tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def test_a_failure_leaves_an_existing_folder_as_it_was(image_prediction, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    monkeypatch.setattr("medzsad.results.writing.save_overlay", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        image_prediction.save(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_only_what_is_asked_for(image_prediction, tmp_path):
    assert set(image_prediction.save(tmp_path / "out", formats=("json",))) == {"json"}
    with pytest.raises(ValueError, match="pdf"):
        image_prediction.save(tmp_path / "out", formats=("pdf",))


def test_prepare_folder_says_what_it_created(tmp_path):
    assert prepare_folder(tmp_path / "a" / "b") == tmp_path / "a"
    assert prepare_folder(tmp_path / "a" / "b") is None
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritable, match="file"):
        prepare_folder(tmp_path / "file")


def test_every_result_is_known_as_one(image_prediction, tmp_path):
    for prediction in (image_prediction, make_volume()):
        formats = ("nifti", "overlay", "json", "scan", "slices", "html", "seg.nrrd")
        for path in prediction.save(tmp_path / prediction.scan.name, formats=formats).values():
            assert mark_of(path)[0] == prediction.fingerprint, path
            assert path.name.removeprefix(prediction.scan.name) in ENDINGS
            assert may_be_replaced(path)
        with pytest.raises(BadInput, match="no scans"):
            find_scans(tmp_path / prediction.scan.name)


def test_results_of_an_earlier_scan_of_the_same_name_go(image_prediction, tmp_path):
    formats = ("nifti", "overlay", "json", "slices", "html")
    image_prediction.save(tmp_path / "out", formats=formats)
    (tmp_path / "out" / "photo_notes.txt").write_text("mine")
    image_prediction.save(tmp_path / "out", formats=("json",))  # the same prediction: its files stay
    assert len(list((tmp_path / "out").iterdir())) == 7
    other = replace(image_prediction, anomaly_map=image_prediction.anomaly_map / 2)
    files = other.save(tmp_path / "out", formats=("json",))
    assert sorted((tmp_path / "out").iterdir()) == sorted(
        [tmp_path / "out" / "photo_notes.txt", files["json"]]
    )


def test_results_of_an_older_version_go_too(image_prediction, tmp_path):
    (tmp_path / "photo.json").write_text(json.dumps({"mask_labels": {}, "slices": []}))
    Image.new("L", (3, 3)).save(tmp_path / "photo_overlay.png")
    image_prediction.save(tmp_path, formats=("json",))
    assert not (tmp_path / "photo_overlay.png").exists()
    assert (tmp_path / "photo.png").exists()


@pytest.mark.parametrize("name", ["photo.json", "photo_mask.png"])
def test_what_is_no_result_is_not_replaced(image_prediction, tmp_path, name):
    (tmp_path / name).write_text('{"EchoTime": 3}')
    with pytest.raises(OutputNotWritable, match=rf"{name} was not written by medzsad"):
        image_prediction.save(tmp_path)
    assert (tmp_path / name).read_text() == '{"EchoTime": 3}'
    assert not (tmp_path / "photo_anomaly.png").exists()
    assert not list(tmp_path.glob(".medzsad-*"))


def test_unknown_voxel_size_means_no_millilitres(tmp_path):
    known = make_volume()
    unknown = replace(known, scan=replace(known.scan, has_geometry=False))
    page = render_html_report(unknown)
    assert "mL)" in render_html_report(known)
    assert "mL)" not in page
    assert '"voxel_ml": null' in page
    document = report(unknown)
    assert document["scan"]["spacing_mm"] is None
    assert len(document["lesions"]) == 2
    assert all(lesion["volume_ml"] is None for lesion in document["lesions"])


@pytest.mark.parametrize("size", [1.0, 0.05, 4e-6])
def test_voxels_of_any_size_are_drawn(tmp_path, size):
    prediction = make_volume()
    affine = prediction.affine @ np.diag([size, size, size, 1.0])
    small = replace(prediction, scan=replace(prediction.scan, affine=affine))
    assert len(small.save(tmp_path, formats=("overlay", "html", "nifti", "json"))) == 5


def test_further_formats(tmp_path):
    prediction = make_volume()
    files = prediction.save(tmp_path, formats=("html", "slices", "seg.nrrd"))
    assert set(files) == {"html", "slices", "seg.nrrd"}
    pictures = sorted(path.name for path in files["slices"].iterdir())
    assert 1 < len(pictures) <= 6
    axis = prediction.slice_scores[0].axis
    best = max(prediction.slice_scores, key=lambda score: (score.score, -score.index))
    assert f"turned_slice_axial_{best.index:03d}.png" in pictures
    assert axis == 1
    for path in files["slices"].iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 1280


def test_slices_of_an_earlier_run_are_replaced(tmp_path):
    (tmp_path / "turned_slices").mkdir()
    (tmp_path / "turned_slices" / "turned_slice_axial_999.png").write_bytes(b"old")
    make_volume().save(tmp_path, formats=("slices",))
    assert not (tmp_path / "turned_slices" / "turned_slice_axial_999.png").exists()
    assert list((tmp_path / "turned_slices").iterdir())


def test_images(tmp_path):
    files = make_picture().save(tmp_path, formats=(*FORMATS, "html", "slices", "seg.nrrd"))
    assert "seg.nrrd" not in files
    assert [path.name for path in files["slices"].iterdir()] == ["photo_slice_image.png"]


def test_the_segmentation_lies_where_the_mask_lies(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    prediction = make_volume()
    files = prediction.save(tmp_path, formats=("nifti", "seg.nrrd"))
    mask, header = nrrd.read(str(files["seg.nrrd"]))
    expected = nibabel.load(files["mask"])
    np.testing.assert_array_equal(mask, np.asarray(expected.dataobj))
    affine = np.eye(4)
    affine[:3, :3] = header["space directions"].T
    affine[:3, 3] = header["space origin"]
    assert header["space"] == "left-posterior-superior"
    np.testing.assert_allclose(LPS_TO_RAS @ affine, expected.affine, atol=1e-4)
    assert header["Segment0_Name"] == "anomaly candidate"
    assert header["Segment0_LabelValue"] == "1"
    first = [int(edge) for edge in header["Segment0_Extent"].split()]
    hits = np.argwhere(mask)
    assert first == [edge for axis in range(3) for edge in (hits[:, axis].min(), hits[:, axis].max())]


def test_an_empty_segmentation_is_complete(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    prediction = make_volume()
    prediction.anomaly_map[:] = 0
    mask, header = nrrd.read(str(prediction.save(tmp_path, formats=("seg.nrrd",))["seg.nrrd"]))
    assert mask.shape == prediction.scan.shape
    assert not mask.any()
    assert header["Segment0_Name"] == "anomaly candidate"
