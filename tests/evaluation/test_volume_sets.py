"""A detector on volumes: voxels, cases, lesions and whole volumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from medzsad.datasets.samples import SampleSet
from medzsad.detectors.references import Brightness
from medzsad.detectors.volume_rules import VolumeRules
from medzsad.evaluation.cache import PredictionCache
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.evaluation.volume_sets import evaluate_volumes, findings_of
from medzsad.metrics.lesionwise import LesionRule
from medzsad.predicting import predict
from medzsad.results.lesions import CandidateRules
from medzsad.scans.readers import read_scan

SETTINGS = EvaluationSettings(resamples=50)


def run(samples: SampleSet, detector: Brightness, settings: EvaluationSettings = SETTINGS, **options):
    cache = options.pop("cache", PredictionCache(None, detector, {}))
    outcomes, mode = evaluate_volumes(detector, samples, settings, threshold=0.7, cache=cache, **options)
    assert len(outcomes) == 1
    return outcomes[0], mode


def test_figures_are_those_of_predict(volumes: SampleSet, brightness: Brightness) -> None:
    outcome, mode = run(volumes, brightness)
    assert mode == "exact"
    assert (outcome.normal, outcome.anomalous) == (1, 2)
    expected, scores = [], []
    for sample in volumes:
        result = predict(sample.read_scan(), brightness)
        label = sample.read_label()
        scores.append(result.score)
        if label.any():
            expected.append(average_precision_score(label.ravel(), result.anomaly_map.ravel()))
    assert outcome.figures["case"]["ap"].value == pytest.approx(np.mean(expected), abs=1e-9)
    assert [case["score"] for case in outcome.cases] == pytest.approx(scores)
    assert outcome.cases[2]["ap"] is None
    assert "no anomalous voxel" in outcome.cases[2]["undefined"]["ap"]
    assert outcome.figures["image"]["auroc"].value == 1.0  # both sick volumes above the healthy one


def test_lesions_are_counted(volumes: SampleSet, brightness: Brightness) -> None:
    outcome, _ = run(volumes, brightness)
    assert [case["lesions"] for case in outcome.cases] == [1, 2, 0]
    assert outcome.figures["lesion"]["lesion_sensitivity"].value == 1.0
    alarms = sum(case["false_positives"] for case in outcome.cases)
    assert outcome.figures["lesion"]["fp_per_scan"].value == pytest.approx(alarms / 3)
    assert outcome.curves["lesion"]["froc"][1][-1] == 1.0
    # Each box is 48 voxels of 12 mm3: 0.576 mL.
    none, _ = run(volumes, brightness, replace(SETTINGS, minimum_lesion_ml=0.6))
    assert none.figures["lesion"]["lesion_sensitivity"].value is None
    assert none.figures["lesion"]["lesion_sensitivity"].reason == "no lesion in any scan"


def test_one_candidate_over_the_whole_body_finds_nothing(volumes: SampleSet, brightness: Brightness) -> None:
    """Unless a shared voxel is enough, which is for who asks for it."""
    everything = replace(SETTINGS, threshold=0.0)
    for settings, found in ((everything, 0.0), (replace(everything, minimum_lesion_iou=0.0), 1.0)):
        cache = PredictionCache(None, brightness, {})
        (outcome,), _ = evaluate_volumes(brightness, volumes, settings, threshold=0.0, cache=cache)
        assert outcome.figures["lesion"]["lesion_sensitivity"].value == found


class Faint(Brightness):
    """Of its candidates all are too faint, unless a caller gives a threshold."""

    volume_rules = VolumeRules(least_peak=1.1)


def test_a_threshold_of_the_callers_lifts_the_least_peak_as_in_predict(volumes: SampleSet) -> None:
    detector = Faint().eval()
    own, _ = run(volumes, detector)
    given, _ = run(volumes, detector, replace(SETTINGS, threshold=0.7))
    assert own.figures["lesion"]["lesion_sensitivity"].value == 0.0
    assert given.figures["lesion"]["lesion_sensitivity"].value == 1.0
    scan = next(iter(volumes)).read_scan()
    hidden = predict(scan, detector)
    assert (hidden.lesions, hidden.mask.any()) == ([], False)
    assert hidden.hidden_lesions
    shown = predict(scan, detector, threshold=hidden.threshold)
    assert shown.lesions == hidden.hidden_lesions


def test_lesions_are_matched_with_the_candidates_that_predict_lists() -> None:
    anomaly_map = np.zeros((24, 12, 12), np.float32)
    anomaly_map[2:9, 3:10, 3:10], anomaly_map[12:19, 3:10, 3:10] = 0.9, 0.8
    anomaly_map[9:12, 6, 6] = 0.55  # a thread between two lesions, of which one is only found if divided
    anomaly_map[22, 1, 1] = 0.6  # a speck
    label = np.zeros(anomaly_map.shape, np.uint8)
    label[2:9, 3:10, 3:10] = label[14:17, 5:8, 5:8] = 1
    scan = read_scan(anomaly_map, affine=np.eye(4), name="map")
    rule = LesionRule(threshold=0.5, min_overlap=0.05, overlap="iou")
    plain = CandidateRules()
    divided = CandidateRules(10.0, least_peak=0.6, dip=0.9, neck=0.7)
    for rules, scores, false in ((plain, [0.9, -np.inf], 1), (divided, [0.9, 0.8], 0)):
        found = findings_of(anomaly_map, label, scan, rule, 0.5, rules)
        np.testing.assert_allclose(found.lesion_scores, scores, rtol=1e-6)
        assert len(found.false_positive_scores) == false


def test_counted_voxels_bound_the_exact_ones(volumes: SampleSet, brightness: Brightness) -> None:
    exact, _ = run(volumes, brightness)
    counted, mode = run(volumes, brightness, replace(SETTINGS, mode="histogram"))
    assert mode == "histogram"
    for key in ("auroc", "ap"):
        figure = counted.figures["voxel"][key]
        low, high = figure.bounds or (figure.value, figure.value)
        assert low - 1e-9 <= exact.figures["voxel"][key].value <= high + 1e-9


def test_a_second_run_takes_its_maps_from_the_cache(
    tmp_path: Path, volumes: SampleSet, brightness: Brightness
) -> None:
    first, _ = run(volumes, brightness, cache=PredictionCache(tmp_path / "c", brightness, {}))
    cache = PredictionCache(tmp_path / "c", brightness, {})
    second, _ = run(volumes, brightness, cache=cache)
    assert cache.found == 3
    assert first.figures == second.figures
    assert first.cases == second.cases


def test_maps_can_be_kept(volumes: SampleSet, brightness: Brightness) -> None:
    kept = []
    run(
        volumes,
        brightness,
        keep=lambda sample, scan, anomaly_map, label: kept.append((sample.id, label.any())),
    )
    assert [name for name, _ in kept] == [sample.id for sample in volumes]
    assert [bool(anomalous) for _, anomalous in kept] == [True, True, False]
