"""The pages and pictures that a run may write besides the basic files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medzsad.batch import predict_many
from medzsad.errors import BadInput


@pytest.fixture
def scans(tmp_path) -> Path:
    for seed, name in enumerate(("a", "b")):
        (tmp_path / "in").mkdir(exist_ok=True)
        voxels = np.random.default_rng(seed).random((16, 16, 3)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 4, 1])), tmp_path / "in" / f"{name}.nii.gz")
    return tmp_path / "in"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_several_reports_get_an_index(scans, tmp_path):
    outcome = predict_many([scans], tmp_path / "out", model="brightness", report=True)
    assert outcome.exit_code == 0
    assert {"a_report.html", "b_report.html", "index.html"} <= names(tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    order = sorted(outcome.done, key=lambda done: -done[1]["score"])
    places = [page.index(f'href="{report["name"]}_report.html"') for _, report, _ in order]
    assert places == sorted(places)
    assert not [name for name in names(tmp_path / "out") if name.startswith(".")]


def test_one_report_gets_none(scans, tmp_path):
    predict_many([scans / "a.nii.gz"], tmp_path / "out", model="brightness", report=True, seg_nrrd=True)
    assert names(tmp_path / "out") == {
        "a.json", "a_anomaly.nii.gz", "a_mask.nii.gz", "a_mask.seg.nrrd", "a_overlay.png", "a_report.html",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overlay", "expected"), [("montage", {"a_overlay.png"}), ("slices", {"a_slices"}), ("none", set())]
)
def test_overlay(scans, tmp_path, overlay, expected):
    predict_many([scans / "a.nii.gz"], tmp_path / "out", model="brightness", overlay=overlay)
    assert names(tmp_path / "out") == {"a.json", "a_anomaly.nii.gz", "a_mask.nii.gz"} | expected


def test_an_unknown_overlay_is_refused_before_anything_is_done(scans, tmp_path):
    with pytest.raises(BadInput, match="montage, slices, none"):
        predict_many([scans], tmp_path / "out", model="brightness", overlay="film")
    assert not (tmp_path / "out").exists()
