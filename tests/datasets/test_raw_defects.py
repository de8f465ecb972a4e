from __future__ import annotations

import dataset_factory as factory
import numpy as np
import pytest
from PIL import Image

from medzsad.datasets import raw_defects
from medzsad.datasets.opening import open_dataset
from medzsad.datasets.raw_defects import prepare_ksdd
from medzsad.errors import BadInput, OutputNotWritable


def test_ksdd_is_cut_into_thirds(tmp_path, own_cache):
    wanted = factory.ksdd(tmp_path)
    samples = open_dataset("ksdd", tmp_path)
    kept = next((own_cache / "datasets").iterdir())
    anomalous = [s for s in samples if s.label]
    assert [
        (s.id, s.label, s.mask.relative_to(kept).as_posix(), s.class_name, s.kind) for s in anomalous
    ] == wanted
    # Five normal pieces, a quarter of them, rounded up, for the test.
    assert len(samples) == 3
    assert len(open_dataset("ksdd", tmp_path, split="train")) == 3
    source = np.asarray(Image.open(tmp_path / "kos01" / "Part1.jpg"))
    np.testing.assert_array_equal(np.asarray(Image.open(anomalous[0].image)), source[:8])
    assert anomalous[0].read_mask().sum() == 6


def test_ksdd_is_cut_once(tmp_path, own_cache):
    factory.ksdd(tmp_path)
    first = open_dataset("ksdd", tmp_path)
    written = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.png")}
    assert open_dataset("ksdd", tmp_path).samples == first.samples
    assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.png")} == written
    factory.mask(tmp_path / "kos01" / "Part0_label.bmp", True, (6, 24))
    assert sum(s.label for s in open_dataset("ksdd", tmp_path)) == 2


def test_prepare_ksdd_keeps_what_is_there(tmp_path):
    factory.ksdd(tmp_path / "raw")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(OutputNotWritable, match="exists"):
        prepare_ksdd(tmp_path / "raw", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(BadInput, match="kos01"):
        prepare_ksdd(tmp_path / "out", tmp_path / "other")


def test_a_ksdd_label_of_another_size(tmp_path, own_cache):
    factory.ksdd(tmp_path)
    factory.mask(tmp_path / "kos01" / "Part0_label.bmp", True, (6, 20))
    with pytest.raises(BadInput, match=r"Part0_label\.bmp has another size"):
        open_dataset("ksdd", tmp_path)
    assert list(own_cache.rglob("*.png")) == []


def test_two_processes_may_prepare_at_once(tmp_path, own_cache, monkeypatch):
    factory.ksdd(tmp_path)
    first = open_dataset("ksdd", tmp_path)
    folder = next((own_cache / "datasets").iterdir())
    hidden = folder.rename(own_cache / "hidden")
    prepare = raw_defects.prepare_ksdd

    def slow(root, out):  # the other process finishes while this one begins
        hidden.rename(folder)
        return prepare(root, out)

    monkeypatch.setattr(raw_defects, "prepare_ksdd", slow)
    assert open_dataset("ksdd", tmp_path).samples == first.samples
    assert [path.name for path in (own_cache / "datasets").iterdir()] == [folder.name]
