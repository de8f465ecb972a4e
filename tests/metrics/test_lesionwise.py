from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medzsad.metrics.lesionwise import CaseFindings, LesionRule, find_lesions, froc_curve, lesion_metrics
from medzsad.metrics.undefined import Undefined, UndefinedMetric


def case() -> tuple[np.ndarray, np.ndarray]:
    """Three lesions (64, 8 and 1 voxels); the first two are found, one candidate is false."""
    scores, label = np.zeros((20, 20, 20), np.float32), np.zeros((20, 20, 20), np.uint8)
    label[2:6, 2:6, 2:6] = 1
    label[10:12, 10:12, 10:12] = 2
    label[18, 18, 18] = 1
    scores[2:4, 2:6, 2:6] = 0.6
    scores[3, 3, 3] = 0.8
    scores[11:14, 11:14, 11:14] = 0.7
    scores[15, 2:4, 2] = 0.9
    return scores, label


def test_lesions_found_missed_and_false_alarms():
    found = find_lesions(*case(), LesionRule(0.5))
    assert found.lesion_scores.tolist() == pytest.approx([0.8, 0.7, -np.inf])
    assert found.false_positive_scores.tolist() == pytest.approx([0.9])
    summary = lesion_metrics([found])
    assert summary["lesion_sensitivity"] == pytest.approx(2 / 3)
    assert summary["fp_per_scan"] == 1
    assert summary["froc_0.5"] == 0
    assert summary["froc_1"] == summary["froc_8"] == pytest.approx(2 / 3)
    assert summary["froc_mean"] == pytest.approx(4 * (2 / 3) / 7)


def test_higher_thresholds_make_fewer_candidates():
    found = find_lesions(*case(), LesionRule(0.75))
    assert found.lesion_scores.tolist() == pytest.approx([0.8, -np.inf, -np.inf])
    assert find_lesions(*case(), LesionRule(0.95)).false_positive_scores.size == 0


def test_a_threshold_that_a_voxel_equals_counts_it():
    assert find_lesions(*case(), LesionRule(0.9)).false_positive_scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("overlap", "share", "found"),
    [
        # The first lesion shares 32 of its 64 voxels; the second 1 of its 8, with a candidate of 27.
        ("lesion", 0.125, [True, True]),
        ("lesion", 0.13, [True, False]),
        ("lesion", 0.5, [True, False]),
        ("lesion", 0.51, [False, False]),
        ("iou", 0.5, [True, False]),
        ("iou", 1 / 34, [True, True]),
        ("iou", 0.03, [True, False]),
    ],
)
def test_least_overlap(overlap, share, found):
    findings = find_lesions(*case(), LesionRule(0.5, min_overlap=share, overlap=overlap))
    assert (findings.lesion_scores[:2] > 0).tolist() == found
    # A candidate that touches a lesion too little is not a false positive.
    assert findings.false_positive_scores.size == 1


def test_small_lesions_are_ignored_together_with_what_finds_them():
    scores, label = case()
    findings = find_lesions(scores, label, LesionRule(0.5, min_lesion_mm3=17), spacing=(1, 1, 2))
    assert findings.lesion_scores.tolist() == pytest.approx([0.8])
    assert findings.false_positive_scores.size == 1
    assert (
        find_lesions(scores, label, LesionRule(0.5, min_lesion_mm3=16), spacing=(1, 1, 2)).lesion_scores.size
        == 2
    )


def test_one_candidate_may_find_several_lesions_and_one_lesion_take_the_best_candidate():
    label, scores = np.zeros((1, 9), bool), np.zeros((1, 9))
    label[0, [1, 5]] = True
    scores[0, 1:6] = 0.7
    assert find_lesions(scores, label, LesionRule(0.5)).lesion_scores.tolist() == [0.7, 0.7]
    label[0, 1:6] = True
    scores[0, 3], scores[0, 5] = 0, 0.9
    assert find_lesions(scores, label, LesionRule(0.5)).lesion_scores.tolist() == [0.9]


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_froc_equals_thresholding_candidate_by_candidate(seed):
    rng = np.random.default_rng(seed)
    cases, scans = [], []
    for _ in range(3):
        scores = np.round(ndimage.gaussian_filter(rng.random((8, 9, 10)), 0.8), 2)
        label = rng.random((8, 9, 10)) < 0.01
        label[0, 0, 0] = True
        scans.append((scores, label))
        cases.append(find_lesions(scores, label, LesionRule(0.55)))
    curve = froc_curve(cases)
    for number, cut in enumerate(curve.thresholds):
        hit = total = false = 0
        for scores, label in scans:
            candidates, many = ndimage.label(scores >= 0.55, np.ones((3, 3, 3)))
            lesions, count = ndimage.label(label, np.ones((3, 3, 3)))
            kept = [n for n in range(1, many + 1) if scores[candidates == n].max() >= cut]
            hit += sum(np.isin(candidates[lesions == n], kept).any() for n in range(1, count + 1))
            total += count
            false += sum(not label[candidates == n].any() for n in kept)
        assert curve.sensitivity[number] == pytest.approx(hit / total)
        assert curve.false_positives[number] == pytest.approx(false / 3)
    for rate in (0, 0.125, 1 / 3, 1, 100):
        allowed = curve.sensitivity[curve.false_positives <= rate]
        assert curve.at(rate) == allowed.max()


def test_scans_without_lesions_count_as_scans():
    healthy = CaseFindings(np.empty(0), np.array([0.9]))
    ill = CaseFindings(np.array([0.8]), np.empty(0))
    summary = lesion_metrics([ill, healthy])
    assert (summary["fp_per_scan"], summary["froc_0.25"], summary["froc_0.5"]) == (0.5, 0, 1)


def test_undefined_without_lesions_or_scans():
    summary = lesion_metrics([CaseFindings(np.empty(0), np.array([0.9, 0.8]))])
    assert summary.pop("fp_per_scan") == 2
    assert set(summary.values()) == {Undefined("no lesion in any scan")}
    assert set(lesion_metrics([]).values()) == {Undefined("no scan")}
    with pytest.raises(UndefinedMetric, match="no scan"):
        froc_curve([])


def test_nothing_found_at_all():
    summary = lesion_metrics([CaseFindings(np.array([-np.inf, -np.inf]), np.empty(0))])
    assert set(summary.values()) == {0}


def test_bad_rules_and_spacings_are_refused():
    with pytest.raises(ValueError, match="least overlap"):
        LesionRule(0.5, min_overlap=2)
    with pytest.raises(ValueError, match='"lesion" or "iou"'):
        LesionRule(0.5, overlap="dice")
    with pytest.raises(ValueError, match="spacing for each of 3 axes"):
        find_lesions(*case(), LesionRule(0.5), spacing=(1, 1))
