"""Published figures: of sets that exist, in percent, with a source and its protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medzsad.datasets import published
from medzsad.datasets.catalog import entries
from medzsad.datasets.published import MASKS, published_figures, published_gains
from medzsad.evaluation.outcome import METRICS

PAPER = [name for name, entry in entries().items() if entry.paper]


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return yaml.safe_load((Path(published.__file__).parent / "published.yaml").read_text(encoding="utf-8"))


def test_every_source_says_its_protocol_and_is_used(content: dict[str, Any]) -> None:
    for source in content["sources"].values():
        assert set(source) <= {"cite", "auxiliary", "masks", "note"}
        assert source["cite"]
        assert source["auxiliary"]
        assert source["masks"] in MASKS
    rows = [row for rows in content["figures"].values() for row in rows] + content["gains"]
    assert {row["source"] for row in rows} == set(content["sources"])


def test_rows_hold_known_metrics_in_percent(content: dict[str, Any]) -> None:
    for name, rows in content["figures"].items():
        assert len({(row["method"], row["source"]) for row in rows}) == len(rows), name
        for row in rows:
            assert set(row) <= {"method", "source", "image", "pixel"}
            levels = [level for level in ("image", "pixel") if row.get(level)]
            assert levels, name
            for level in levels:
                for metric, percent in row[level].items():
                    assert metric in METRICS[level]
                    assert metric not in ("mad", "dice")  # ours to compute
                    assert isinstance(percent, float)
                    assert 1 < percent <= 100
                assert row[level]["auroc"] > 50


def test_all_sets_of_the_paper_have_the_two_methods_that_printed_them_all() -> None:
    assert len(PAPER) == 17
    for name in PAPER:
        entry = entries()[name]
        for method in ("AnomalyCLIP", "WinCLIP"):
            (row, *_) = (figure for figure in published_figures(name) if figure.method == method)
            industrial = entry.domain == "industrial"
            assert bool(row.image) == (industrial or entry.level == "image"), name
            assert set(row.image) <= {"auroc", "ap"}
            assert bool(row.pixel) == (entry.level == "pixel"), name
            assert set(row.pixel) <= {"auroc", "aupro"}
    assert set(entries()) >= set(published._content()["figures"])
    assert published_figures("ddti") == []


def test_figures_of_a_set() -> None:
    (anomalyclip, *_) = published_figures("brainmri")
    assert (anomalyclip.method, anomalyclip.image) == ("AnomalyCLIP", {"auroc": 90.3, "ap": 92.2})
    assert anomalyclip.protocol == "trained on MVTec AD; VisA for MVTec AD, masks published"


def test_sources_that_disagree_both_stand() -> None:
    rows = [figure for figure in published_figures("mvtec") if figure.method == "WinCLIP"]
    assert sorted(row.image["auroc"] for row in rows) == [90.4, 91.8]
    assert len({row.source for row in rows}) == 2


def test_mad_is_computed_only_where_all_its_parts_are_published() -> None:
    by_method = {figure.method: figure for figure in published_figures("kvasir")}
    assert "mad" not in by_method["AnomalyCLIP"].pixel
    assert by_method["AnomalyVFM-SigLIP2"].pixel["mad"] == pytest.approx((88.3 + 58.2 + 60.8 + 79.2) / 4)


def test_headclip_is_a_gain_and_never_a_figure() -> None:
    assert not any(figure.method == "HeadCLIP" for name in PAPER for figure in published_figures(name))
    gains = [(g.domain, g.image["mad"], g.pixel["mad"]) for g in published_gains() if "v2" in g.source]
    assert gains == [("industrial", 3.7, 4.9), ("medical", 3.2, 3.2)]
    assert {gain.method for gain in published_gains()} == {"HeadCLIP"}
