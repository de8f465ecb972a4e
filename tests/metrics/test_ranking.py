from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from metric_sets import tied_scores
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from medzsad.metrics.ranking import rank
from medzsad.metrics.undefined import UndefinedMetric


def best_f1(labels: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        return float(np.nanmax(2 * precision * recall / (precision + recall)))


@given(tied_scores())
def test_equals_scikit_learn_with_heavy_ties(case):
    scores, labels = case
    ranking = rank(scores, labels)
    assert ranking.auroc() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert ranking.ap() == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    value, threshold = ranking.best_f1()
    assert value == pytest.approx(best_f1(labels, scores), abs=1e-12)
    assert value == pytest.approx(f1_score(labels, scores >= threshold), abs=1e-12)


def test_equals_scikit_learn_on_many_scores():
    rng = np.random.default_rng(0)
    labels = rng.random(200_000) < 0.01
    scores = (rng.standard_normal(200_000) + labels).astype(np.float32)
    ranking = rank(scores, labels)
    assert ranking.auroc() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert ranking.ap() == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert ranking.f1_max() == pytest.approx(best_f1(labels, scores), abs=1e-12)


def test_perfect_inverted_and_equal_scores():
    labels = [0, 0, 1, 1]
    assert rank([1, 2, 3, 4], labels).auroc() == 1
    assert rank([4, 3, 2, 1], labels).auroc() == 0
    flat = rank([5, 5, 5, 5], labels)
    assert (flat.auroc(), flat.ap(), flat.f1_max()) == (0.5, 0.5, pytest.approx(2 / 3))


def test_of_equally_good_thresholds_the_highest_is_given():
    # At 0.9 and at 0.5, F1 is 2/3: a miss weighs as much as two false alarms here.
    assert rank([0.9, 0.5, 0.5, 0.5], [1, 1, 0, 0]).best_f1() == (pytest.approx(2 / 3), 0.9)


def test_infinite_scores_are_ranked():
    assert rank([-np.inf, 0, np.inf], [0, 1, 1]).auroc() == 1


@pytest.mark.parametrize(
    ("labels", "reason"),
    [([1, 1], "no normal image"), ([0, 0], "no anomalous image"), ([], "no anomalous image")],
)
def test_one_class_is_undefined_with_the_reason(labels, reason):
    ranking = rank([0.1, 0.2][: len(labels)], labels, unit="image")
    for metric in (ranking.auroc, ranking.ap, ranking.f1_max):
        with pytest.raises(UndefinedMetric, match=reason):
            metric()


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="an image is NaN"):
        rank([0.1, np.nan], [0, 1], unit="image")
    with pytest.raises(ValueError, match="one label per score"):
        rank([0.1, 0.2], [0, 1, 1])


def test_inputs_are_not_changed():
    scores = np.array([0.3, 0.1, 0.2], np.float32)
    rank(scores, [1, 0, 1])
    assert scores.tolist() == np.array([0.3, 0.1, 0.2], np.float32).tolist()


def test_regions_must_have_been_counted():
    with pytest.raises(ValueError, match="without regions"):
        rank([0.1, 0.2], [0, 1]).aupro()
