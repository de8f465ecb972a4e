"""docs/monai.md is true: its snippets are run, one after another, on small made scans."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import write_series
from made_scans import small_head

PAGE = Path(__file__).parents[2] / "docs" / "monai.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(heads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page names."""
    (tmp_path / "scans").mkdir()
    shutil.copy(heads[0], tmp_path / "scan.nii.gz")
    for path in heads:
        shutil.move(path, tmp_path / "scans" / path.name)
    slices = np.moveaxis(small_head((12, 10, 4)), 2, 0).astype(np.int16)
    write_series(tmp_path / "dicom_series", slices, [0, 3, 6, 9])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_a_snippet_for_each_door() -> None:
    text = "".join(SNIPPETS)
    for door in ("AnomalyMapd", "AnomalyInferer", "SupervisedEvaluator", "MedzsadReader", "SavePredictiond",
                 "to_nibabel", "to_metatensor", "Invertd"):  # fmt: skip
        assert door in text
    assert len(SNIPPETS) == 6


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs_and_is_short(number: int, folder: Path) -> None:
    snippet = SNIPPETS[number]
    assert len([line for line in snippet.splitlines() if line.strip()]) <= 10
    names: dict[str, object] = {}
    exec(compile(snippet, f"{PAGE.name}, snippet {number + 1}", "exec"), names)
    for file in re.findall(r"out/[\w/]+\.nii\.gz", snippet):
        assert (folder / file).is_file()
    if "item" in names:
        assert names["item"]["image_anomaly"].shape == (1, 20, 24, 6)
    if "maps" in names:
        assert names["maps"].shape == (1, 1, 32, 32, 8)
    if "same" in names:
        assert names["image"].shape == names["same"].shape == (10, 12, 4)
    if "scans_at" in names:
        assert len(list((folder / "out").glob("*_anomaly.nii.gz"))) == 2
