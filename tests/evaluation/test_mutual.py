"""The samples of a set score each other, class by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medzsad.datasets.opening import DatasetQuery
from medzsad.datasets.samples import SampleSet
from medzsad.detectors.mutual.settings import MutualSettings
from medzsad.errors import BadInput
from medzsad.evaluation.command import run_evaluation
from medzsad.evaluation.mutual import mutual_detector
from medzsad.evaluation.settings import EvaluationSettings, RunSettings
from medzsad.predicting import predict

SMALL = MutualSettings(image_size=128)
SETTINGS = EvaluationSettings(resamples=0, size=96)
ALONE = RunSettings(references=())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "cache"))


def tiles(root: Path, name: str, good: int, level: int) -> None:
    """Textures of one class, and one with a blob."""
    for number in range(good + 1):
        noise = np.random.default_rng(number + level).normal(0, 1, (96, 96))
        pixels = np.clip(level + 140 * gaussian_filter(noise, 1.5), 5, 250)
        folder = "good" if number < good else "blob"
        if folder == "blob":
            pixels[20:40, 50:70] = 250
            mask = np.zeros((96, 96), np.uint8)
            mask[20:40, 50:70] = 255
            path = root / name / "ground_truth" / folder / f"{number:03}_mask.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
        path = root / name / "test" / folder / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)


def test_classes_are_cohorts_of_their_own(tmp_path):
    tiles(tmp_path / "set", "bottle", 4, 120)
    tiles(tmp_path / "set", "cable", 3, 60)
    query = DatasetQuery("mvtec", tmp_path / "set")
    outcome = run_evaluation(query, [], SETTINGS, ALONE, mutual=SMALL, device="cpu")
    (found,) = outcome.detectors
    assert found.name == "mutual (lite0)"
    assert found.settings["scans"] == 9
    for one in found.classes:
        assert one.figures["image"]["auroc"].value == 1.0
        assert one.figures["pixel"]["auroc"].value > 0.95
    again = run_evaluation(query, [], SETTINGS, ALONE, mutual=SMALL, device="cpu")
    assert again.detectors[0].reused == 9
    tiles(tmp_path / "few", "bottle", 1, 120)
    with pytest.raises(BadInput, match="takes 3 or more; bottle of mvtec has 2"):
        run_evaluation(DatasetQuery("mvtec", tmp_path / "few"), [], SETTINGS, ALONE, mutual=SMALL)


def test_volumes(volumes: SampleSet):
    detector = mutual_detector(volumes, SETTINGS, MutualSettings(image_size=64), device="cpu")
    for sample in volumes:
        result = predict(sample.read_scan(), detector)
        assert 0 < result.anomaly_map.max() < 1
