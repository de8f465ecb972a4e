"""Published figures: of sets that exist, in percent, with a source."""

from __future__ import annotations

import yaml

from medzsad.datasets.catalog import entries
from medzsad.evaluation import published
from medzsad.evaluation.outcome import METRICS
from medzsad.evaluation.published import published_figures


def test_all_are_of_known_sets_and_metrics() -> None:
    path = published.Path(published.__file__).parent / "published.yaml"
    names = yaml.safe_load(path.read_text(encoding="utf-8"))["figures"]
    assert set(names) <= set(entries())
    for name in names:
        for figure in published_figures(name):
            assert figure.source.endswith(("2024", "disagree"))
            assert figure.image or figure.pixel
            for level in ("image", "pixel"):
                for metric, percent in getattr(figure, level).items():
                    assert metric in METRICS[level]
                    assert 40 < percent <= 100


def test_figures_of_a_set() -> None:
    (anomalyclip, *_) = published_figures("brainmri")
    assert (anomalyclip.method, anomalyclip.image) == ("AnomalyCLIP", {"auroc": 90.3, "ap": 92.2})
    assert published_figures("ddti") == []
