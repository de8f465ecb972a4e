from __future__ import annotations

import pytest

from medzsad.metrics import image
from medzsad.metrics.undefined import Undefined, UndefinedMetric

SCORES, LABELS = [0.2, 0.9, 0.4, 0.7], [0, 1, 1, 0]


def test_summary_and_single_metrics_agree():
    summary = image.image_metrics(SCORES, LABELS)
    assert summary["image_auroc"] == image.image_auroc(SCORES, LABELS) == 0.75
    assert summary["image_ap"] == image.image_ap(SCORES, LABELS) == pytest.approx((1 + 2 / 3) / 2)
    assert summary["image_f1_max"] == image.image_f1_max(SCORES, LABELS) == pytest.approx(0.8)
    assert summary["image_f1_max_threshold"] == 0.4
    expected = (0.75 + (1 + 2 / 3) / 2 + 0.8) / 3
    assert summary["image_mad"] == pytest.approx(expected)
    assert image.image_mad(SCORES, LABELS) == pytest.approx(expected)


def test_one_class_is_undefined_everywhere():
    summary = image.image_metrics(SCORES, [1, 1, 1, 1])
    assert set(summary.values()) == {Undefined("no normal image")}
    with pytest.raises(UndefinedMetric, match="no anomalous image"):
        image.image_mad(SCORES, [0, 0, 0, 0])


def test_published_values(parity):
    summary = image.image_metrics(parity["scores"], parity["labels"])
    for name in ("image_auroc", "image_ap", "image_f1_max"):
        assert summary[name] == pytest.approx(float(parity[name]), abs=1e-9)
