"""Files under keys: whole or absent, with their records."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from medzsad.errors import OutputNotWritable
from medzsad.storage.atomic import LEFT_BEHIND_S, PREFIX
from medzsad.storage.keyed import KeyedStore

ADVICE = "make room"


@pytest.fixture
def store(tmp_path: Path) -> KeyedStore:
    return KeyedStore(tmp_path / "things", ".txt", what="things", advice=ADVICE)


def keep(store: KeyedStore, key: str, text: str) -> None:
    with store.writing(key) as temporary:
        temporary.write_text(text)


def test_what_is_written_is_read_and_what_is_absent_or_damaged_is_none(store: KeyedStore) -> None:
    assert store.read("a", Path.read_text) is None
    keep(store, "a", "12")
    assert store.read("a", Path.read_text) == "12"
    assert store.read("a", lambda path: int(path.read_text())) == 12
    keep(store, "a", "no number")
    assert store.read("a", lambda path: int(path.read_text())) is None
    assert store.read("a", lambda path: {}[path.read_text()], KeyError) is None
    assert store.size() == len("no number")


def test_a_write_that_fails_keeps_the_older_file(store: KeyedStore) -> None:
    keep(store, "a", "older")

    def fail() -> None:
        with store.writing("a") as temporary:
            temporary.write_text("half")
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        fail()
    assert store.read("a", Path.read_text) == "older"
    assert [path.name for path in store.folder.iterdir()] == ["a.txt"]


def test_a_record_holds_for_the_file_that_it_was_noted_of(store: KeyedStore) -> None:
    assert store.record("a") == {}
    keep(store, "a", "12345")
    assert store.record("a") == {}
    store.note("a", {"compared": {"x": 0.5}})
    assert store.record("a") == {"compared": {"x": 0.5}}
    store.path("a").write_text("123")  # cut
    assert store.record("a") == {}
    for damage in ("", "[]", "{", '{"compared": 1}', "[" * 100_000):
        store.path("a").with_suffix(".json").write_text(damage)
        assert store.record("a") == {}


def test_what_a_killed_run_left_is_removed_when_it_is_old(store: KeyedStore) -> None:
    store.folder.mkdir()
    for name, age in (("old", LEFT_BEHIND_S + 60), ("new", 60)):
        path = store.folder / f"{PREFIX}{name}"
        path.write_text("half")
        os.utime(path, (time.time() - age,) * 2)
    keep(store, "a", "1")
    assert sorted(path.name for path in store.folder.iterdir()) == [f"{PREFIX}new", "a.txt"]


def test_a_place_that_cannot_be_written_says_what_to_do(tmp_path: Path, cache_dir: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritable, match=f"things cannot be kept there .*; {ADVICE}"):
        keep(KeyedStore(tmp_path / "file", ".txt", what="things", advice=ADVICE), "a", "1")
    cache_dir.write_text("")
    with pytest.raises(OutputNotWritable, match="MEDZSAD_CACHE"):
        keep(KeyedStore(cache_dir / "things", ".txt"), "a", "1")


def test_the_cache_folder_keeps_what_is_unfinished_elsewhere(cache_dir: Path) -> None:
    store = KeyedStore(cache_dir / "things", ".txt")
    with store.locked("a"), store.writing("a") as temporary:
        assert temporary.parent == cache_dir / "downloads"
        temporary.write_text("1")
    assert store.read("a", Path.read_text) == "1"
