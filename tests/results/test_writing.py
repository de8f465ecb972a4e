from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from medzsad.errors import OutputNotWritable
from medzsad.results.prediction import ScanPrediction, SliceScore
from medzsad.results.writing import prepare_folder
from medzsad.scans.intensity import intensity_scaling
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

    monkeypatch.setattr("medzsad.results.overlay.save_overlay", full)
    with pytest.raises(OutputNotWritable, match="No space left"):
        image_prediction.save(tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def test_a_failure_leaves_an_existing_folder_as_it_was(image_prediction, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    monkeypatch.setattr("medzsad.results.overlay.save_overlay", lambda *_: 1 / 0)
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
