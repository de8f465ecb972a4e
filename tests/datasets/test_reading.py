"""Folders as people leave them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medzsad.datasets.reading import Masks, child, entries, natural_key, relative_id, tokens
from medzsad.errors import BadInput


def test_natural_order():
    ordered = ["1 no.jpeg", "001.png", "2.png", "10.png", "a", "A1", "a2", "a2b", "a10", "good", "Y1.jpg"]
    assert sorted(reversed(ordered), key=natural_key) == ordered
    assert sorted(map(Path, reversed(ordered)), key=natural_key) == [Path(name) for name in ordered]


def test_children_in_any_case(tmp_path):
    (tmp_path / "Ground Truth").mkdir()
    assert child(tmp_path, "masks", "ground truth") == tmp_path / "Ground Truth"
    assert child(tmp_path, "images") is None
    assert child(tmp_path / "none", "images") is None


def test_masks_by_name(tmp_path):
    for name in ("a.png", "b_mask.PNG", "c.jpg.png", "d_Segmentation.png", "e.txt"):
        (tmp_path / name).touch()
    masks = Masks(tmp_path)
    found = {stem: masks.of(Path(f"{stem}.jpg")) for stem in "abcde"}
    assert {stem: path and path.name for stem, path in found.items()} == {
        "a": "a.png",
        "b": "b_mask.PNG",
        "c": "c.jpg.png",
        "d": "d_Segmentation.png",
        "e": None,
    }
    assert [problem.path for problem in Masks(tmp_path).unused] == masks.files
    assert masks.unused == ()
    assert Masks(None).of(Path("a.png")) is None


def test_small_helpers(tmp_path):
    assert list(tokens("T1c_subtr-Mean.nii.gz")) == ["t1c", "subtr", "mean", "nii", "gz"]
    assert relative_id(tmp_path / "a" / "b.png", tmp_path) == "a/b.png"
    assert relative_id(tmp_path / os.fsdecode(b"m\xfcller.png"), tmp_path) == "m\\udcfcller.png"
    assert relative_id(Path("elsewhere") / "b.png", tmp_path) == "b.png"
    with pytest.raises(BadInput, match="cannot be listed"):
        entries(tmp_path / "none")
