from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medzsad.metrics import formulas


def test_rows_are_independent_sets():
    # Two draws over three bins, highest scores first.
    new, wrong = np.array([[2.0, 1, 0], [0, 1, 1]]), np.array([[0.0, 1, 3], [1, 1, 1]])
    tp, fp = new.cumsum(-1), wrong.cumsum(-1)
    areas = formulas.roc_area(new, fp - wrong, fp, tp[:, -1], fp[:, -1])
    precisions = formulas.average_precision(new, tp, fp, tp[:, -1])
    for row in range(2):
        counts = np.r_[new[row], wrong[row]].astype(int)
        scores, labels = np.repeat([3, 2, 1, 3, 2, 1], counts), np.repeat([1, 1, 1, 0, 0, 0], counts)
        assert areas[row] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert precisions[row] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("rise", "expected"),
    [
        ((0, 0), 1.0),  # up at FPR 0
        ((5, 5), 0.5),  # up at half the limit of 10
        ((0, 10), 0.5),  # slanted, to the limit
        ((0, 20), 0.25),  # slanted, cut at the limit at half its height
        ((6, 14), 0.1),  # cut: a triangle of 4 by 0.5
        ((10, 10), 0.0),
        ((15, 20), 0.0),
    ],
)
def test_area_of_one_rise_up_to_a_limit(rise, expected):
    above, upto = (np.array([float(x)]) for x in rise)
    area = formulas.partial_area(np.array([1.0]), above, upto, 1.0, 100.0, 0.1)
    assert area == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("limit", [0, -0.1, 1.01, float("nan")])
def test_limits_outside_the_range_are_refused(limit):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        formulas.check_limit(limit)
