from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from medzsad.batch.store import OUTCOME, FolderStore, open_store, place_of
from medzsad.errors import BadInput, OutputNotWritable
from medzsad.storage.atomic import LEFT_BEHIND_S


def commit(store: FolderStore, scan: str, content: str) -> None:
    with store.staging() as files:
        (files / "map.nii").write_text(content)
        store.commit(scan, files, content.encode())


def test_results_take_the_place_of_others_whole(tmp_path):
    store = open_store(tmp_path / "out")
    commit(store, "a", "first")
    (tmp_path / "out" / place_of("a") / "more.png").write_bytes(b"")
    commit(store, "a", "second")
    files = {path.name: path.read_text() for path in (tmp_path / "out" / place_of("a")).iterdir()}
    assert files == {"map.nii": "second", OUTCOME: "second"}
    assert not list((tmp_path / "out" / "scans").glob(".*"))


def test_two_workers_may_finish_the_same_scan_at_once(tmp_path, monkeypatch):
    """Ray may think a worker lost that only was slow."""
    store = open_store(tmp_path / "out")
    commit(store, "a", "before")
    rename, moved = os.rename, []

    def slow(source: Path, target: Path) -> None:
        rename(source, target)
        if Path(source) == tmp_path / "out" / place_of("a") and not moved:
            moved.append(target)
            commit(store, "a", "the other's")

    monkeypatch.setattr(os, "rename", slow)
    commit(store, "a", "ours")
    assert moved
    assert store.read(f"{place_of('a')}/{OUTCOME}") == b"ours"
    assert not list((tmp_path / "out" / "scans").glob(".*"))


def test_what_a_killed_worker_left_is_taken_away_when_it_is_old(tmp_path):
    store = open_store(tmp_path / "out")
    for name, age in ((".medzsad-old", LEFT_BEHIND_S + 60), (".medzsad-new", 60)):
        folder = tmp_path / "out" / "scans" / name
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"x")
        os.utime(folder, (time.time() - age,) * 2)
    store.prepare()
    assert [path.name for path in (tmp_path / "out" / "scans").iterdir()] == [".medzsad-new"]


def test_a_place_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputNotWritable):
        open_store(tmp_path / "file" / "out").prepare()
    (tmp_path / "out" / OUTCOME).mkdir(parents=True)
    with pytest.raises(OutputNotWritable, match="cannot be written or read"):
        open_store(tmp_path / "out").read(OUTCOME)
    pytest.importorskip("fsspec", reason="fsspec is not installed (medzsad[cohort])")
    with pytest.raises(BadInput, match="results cannot be written there"):
        open_store("nosuch://x")
