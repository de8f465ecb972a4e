from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from medzsad.metrics.lesionwise import LesionRule
from medzsad.metrics.undefined import Undefined
from medzsad.metrics.volume import case_metrics, mean_over_cases, volume_metrics


def volumes(cases: int = 3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    maps, labels = [], []
    for number in range(cases):
        shape = (10 + number, 12, 9)
        label = np.zeros(shape, np.uint8)
        label[2:6, 3:8, 2:5] = 1 if number else 0
        field = ndimage.gaussian_filter(rng.standard_normal(shape), 1) * 3 + label
        maps.append((1 / (1 + np.exp(1 - field))).astype(np.float32))
        labels.append(label)
    return maps, labels


def test_a_case_equals_scikit_learn():
    (_, scores), (_, label) = volumes(2)
    summary = case_metrics(scores, label, threshold=0.5)
    assert summary["auroc"] == pytest.approx(roc_auc_score(label.ravel(), scores.ravel()), abs=1e-12)
    assert summary["ap"] == pytest.approx(average_precision_score(label.ravel(), scores.ravel()), abs=1e-12)
    assert summary["dice"] == pytest.approx(f1_score(label.ravel(), scores.ravel() >= 0.5), abs=1e-12)
    best = f1_score(label.ravel(), scores.ravel() >= np.float32(summary["dice_best_threshold"]))
    assert summary["dice_best"] == pytest.approx(best, abs=1e-12)
    assert summary["dice_best"] >= summary["dice"]


def test_only_the_foreground_and_the_label_count():
    (_, scores), (_, label) = volumes(2)
    foreground = np.zeros(label.shape, bool)
    foreground[:8, 4:] = True
    summary = case_metrics(scores, label, foreground=foreground)
    inside = foreground | (label > 0)
    assert (label[~foreground] > 0).any()
    assert summary["ap"] == pytest.approx(average_precision_score(label[inside], scores[inside]), abs=1e-12)
    with pytest.raises(ValueError, match="foreground has shape"):
        case_metrics(scores, label, foreground=foreground[1:])


def test_means_over_cases_and_pooled_voxels():
    maps, labels = volumes()
    summary = volume_metrics(maps, labels, threshold=0.5)
    each = [case_metrics(scores, label, threshold=0.5) for scores, label in zip(maps, labels, strict=True)]
    assert each[0]["ap"] == each[0]["dice"] == Undefined("no anomalous voxel")
    for name in ("auroc", "ap", "dice_best", "dice"):
        assert summary[f"case_{name}"] == pytest.approx(np.mean([case[name] for case in each[1:]]))
    scores, truth = (np.concatenate([a.ravel() for a in arrays]) for arrays in (maps, labels))
    assert summary["voxel_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert summary["voxel_ap"] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert summary["voxel_dice"] == pytest.approx(f1_score(truth, scores >= 0.5), abs=1e-12)
    best = f1_score(truth, scores >= np.float32(summary["voxel_dice_best_threshold"]))
    assert summary["voxel_dice_best"] == pytest.approx(best, abs=1e-12)
    assert "fp_per_scan" not in summary


def test_lesions_see_their_spacing_and_foreground():
    maps, labels = volumes()
    maps = [
        np.where(label > 0, 0.9, scores * 0.5).astype(np.float32)
        for scores, label in zip(maps, labels, strict=True)
    ]
    maps[0][0, 0, 0] = 0.8
    summary = volume_metrics(maps, labels, lesions=LesionRule(0.7))
    assert (summary["lesion_sensitivity"], summary["fp_per_scan"]) == (1, pytest.approx(1 / 3))
    foregrounds = [np.ones(label.shape, bool) for label in labels]
    foregrounds[0][0] = False
    summary = volume_metrics(maps, labels, lesions=LesionRule(0.7), foregrounds=foregrounds)
    assert summary["fp_per_scan"] == 0
    big = LesionRule(0.7, min_lesion_mm3=100)
    spacings = [(1, 1, 1), (1, 1, 1), (1, 1, 2)]
    assert volume_metrics(maps[1:], labels[1:], lesions=big, spacings=spacings[1:])["froc_mean"] == 1
    assert volume_metrics(maps[:2], labels[:2], lesions=big, spacings=spacings[:2])["froc_mean"] == Undefined(
        "no lesion in any scan"
    )


def test_sets_that_cannot_be_judged():
    maps, labels = volumes(1)
    summary = volume_metrics(maps, labels, threshold=0.5)
    assert summary["voxel_ap"] == summary["voxel_dice"] == Undefined("no anomalous voxel")
    assert summary["case_ap"] == Undefined("no case in which it is defined: no anomalous voxel")
    assert volume_metrics([], [])["case_ap"] == mean_over_cases([]) == Undefined("no case")
    with pytest.raises(ValueError, match="1 maps, but 2 foregrounds"):
        volume_metrics(maps, labels, foregrounds=[None, None])


def test_maps_of_another_grid_are_brought_to_the_label():
    _, (label,) = volumes(1)
    label[2:6, 2:6, 2:6] = 1
    small = ndimage.zoom(label.astype(float), 0.5, order=1)
    assert case_metrics(small, label)["auroc"] > 0.9
