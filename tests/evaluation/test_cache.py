"""What is kept between runs comes back as it was, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mini_cases import SMALL

from medzsad.datasets.samples import SampleSet
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.references import Brightness, Darkness
from medzsad.detectors.volume_rules import MEASURED_RULES, NO_RULES
from medzsad.errors import OutputNotWritable
from medzsad.evaluation.cache import PredictionCache, StoredPrediction, describe_detectors, weights_hash
from medzsad.evaluation.evaluate import framing_and_cache
from medzsad.evaluation.settings import EvaluationSettings

STORED = StoredPrediction(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), 0.25, 0.75)


def test_what_is_put_is_found_by_the_next_run(tmp_path: Path, brightness: Brightness) -> None:
    cache = PredictionCache(tmp_path, brightness, {"framing": "whole"})
    assert cache.get("a") is None
    cache.put("a", STORED)
    assert cache.get("a") is not None
    assert cache.found == 0  # of this run
    later = PredictionCache(tmp_path, brightness, {"framing": "whole"})
    found = later.get("a")
    assert np.array_equal(found.anomaly_map, STORED.anomaly_map)
    assert found.anomaly_map.dtype == np.float32
    assert (found.score, found.probability, later.found) == (0.25, 0.75, 1)
    assert not list(tmp_path.rglob("*.partial"))


def test_other_settings_methods_and_weights_have_their_own(tmp_path: Path, brightness: Brightness) -> None:
    folders = {
        PredictionCache(tmp_path, detector, other).folder
        for detector, other in (
            (brightness, {"framing": "whole"}),
            (brightness, {"framing": "foreground"}),
            (Brightness(smoothing_sigma=3.0), {"framing": "whole"}),
            (Darkness(), {"framing": "whole"}),
        )
    }
    assert len(folders) == 4
    first, second = Brightness(), Brightness()
    second.mean += 1
    second.register_buffer("mean", second.mean)
    assert weights_hash(first) != weights_hash(second)
    assert weights_hash(first) == weights_hash(Brightness())


def test_damaged_entries_are_as_good_as_none(tmp_path: Path, brightness: Brightness) -> None:
    cache = PredictionCache(tmp_path, brightness, {})
    cache.put("a", STORED)
    path = cache.folder / "a.npz"
    for damaged in (path.read_bytes()[:100], b"", b"not a zip"):
        path.write_bytes(damaged)
        assert cache.get("a") is None


def test_none_keeps_nothing(brightness: Brightness) -> None:
    cache = PredictionCache(None, brightness, {})
    cache.put("a", STORED)
    assert cache.get("a") is None


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path, brightness: Brightness) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = PredictionCache(tmp_path / "file", brightness, {})
    with pytest.raises(OutputNotWritable, match="`no_cache`"):
        cache.put("a", STORED)


def test_figures_depend_on_the_thresholds_of_all_kinds_of_images() -> None:
    detector = MedzsadMini(image_size=48, network=SMALL, colour="lite0", photographs=True, ultrasound=True)
    described = [describe_detectors([detector])]
    for kind in ("colour_threshold", "ultrasound_threshold"):
        setattr(detector, kind, 0.3)
        described.append(describe_detectors([detector]))
    assert "own_thresholds" not in described[0][0]
    assert described[1] != described[2]
    assert described[2][0]["own_thresholds"] == {"colour": 0.3, "ultrasound": 0.3}


def test_figures_and_predictions_of_volumes_depend_on_the_rules_for_them(tmp_path: Path) -> None:
    detector = MedzsadMini(image_size=48, network=SMALL)
    volumes = SampleSet("custom", tmp_path, "files", "test", "voxel", ())
    described, folders = [], []
    for rules in (MEASURED_RULES, replace(MEASURED_RULES, guide_mm=0.0), NO_RULES):
        detector.volume_rules = rules
        described.append(describe_detectors([detector])[0])
        _, cache = framing_and_cache(volumes, detector, EvaluationSettings(), tmp_path)
        folders.append(cache.folder)
    assert described[0] != described[1]
    assert "volume_rules" not in described[2]  # what was kept of models without rules stays
    assert len(set(folders)) == 3
