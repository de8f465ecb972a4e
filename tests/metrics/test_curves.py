from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve
from sklearn.metrics import roc_curve as sklearn_roc

from medzsad.metrics.curves import pr_curve, pro_curve, roc_curve
from medzsad.metrics.pixel import rank_pixels
from medzsad.metrics.ranking import rank
from medzsad.metrics.undefined import UndefinedMetric


def test_unthinned_curves_hold_scikit_learns_points():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 20, 80) / 20, rng.random(80) < 0.4
    ranking = rank(scores, labels)
    ours = roc_curve(ranking)
    fpr, tpr, _ = sklearn_roc(labels, scores)
    # A point of theirs lies on our curve: its TPR is within ours at its FPR.
    for x, y in zip(fpr, tpr, strict=True):
        assert np.interp(x - 1e-12, ours.x, ours.y) - 1e-9 <= y <= np.interp(x + 1e-12, ours.x, ours.y) + 1e-9
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    curve = pr_curve(ranking)
    known = {(round(x, 12), round(y, 12)) for x, y in zip(curve.x, curve.y, strict=True)}
    for p, r, threshold in zip(precision, recall, thresholds, strict=False):
        if threshold in scores[labels]:
            assert (round(r, 12), round(p, 12)) in known
    assert (curve.x[0], curve.y[0]) == (0, 1)
    assert (curve.x[-1], curve.y[-1]) == (1, labels.mean())


@pytest.mark.parametrize("limit", [0.1, 0.3, 1.0])
def test_areas_under_the_curves_are_the_metrics(image_set, limit):
    ranking = rank_pixels(image_set.maps, image_set.masks)
    many = 10**6
    roc, pro = roc_curve(ranking, many), pro_curve(ranking, limit, many)
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(ranking.auroc(), abs=1e-9)
    assert pro.x[-1] == limit
    assert np.trapezoid(pro.y, pro.x) / limit == pytest.approx(ranking.aupro(limit), abs=1e-9)


def test_the_end_at_the_limit_is_interpolated_within_ties():
    ranking = rank_pixels(np.ones((1, 4, 5)), np.eye(4, 5)[None])
    curve = pro_curve(ranking, 0.3)
    assert curve.x.tolist() == pytest.approx([0, 0, 0.3])
    assert curve.y.tolist() == pytest.approx([0, 0, 0.3])


def test_thinning_keeps_the_shape(image_set):
    ranking = rank_pixels(image_set.maps, image_set.masks)
    for curve in (roc_curve, pr_curve, pro_curve):
        full, thin = curve(ranking, points=10**6), curve(ranking, points=200)
        assert len(full.x) > 400
        assert len(thin.x) <= 200
        assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (
            full.x[0],
            full.y[0],
            full.x[-1],
            full.y[-1],
        )
        length = (np.abs(np.diff(full.x)) + np.abs(np.diff(full.y))).sum()
        distance = np.abs(full.x[:, None] - thin.x) + np.abs(full.y[:, None] - thin.y)
        assert distance.min(axis=1).max() <= length / 95
        assert (np.diff(thin.thresholds) <= 0).all()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(UndefinedMetric, match="no anomalous pixel"):
        roc_curve(rank([0.1], [0]))
    with pytest.raises(ValueError, match="at least 4"):
        roc_curve(rank([0.1, 0.2], [0, 1]), points=3)
    with pytest.raises(ValueError, match="without regions"):
        pro_curve(rank([0.1, 0.2], [0, 1]))
