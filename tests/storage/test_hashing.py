"""Hashes by which caches know their entries, and shares of a job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medzsad.errors import BadInput, ModelNotReady
from medzsad.storage.hashing import Shard, hash_files, hash_settings, hash_tensors, settings_text

NAMES = [f"case{number:04d}" for number in range(2000)]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_shards_hold_everything_exactly_once_and_about_as_much_each(count):
    shares = [[name for name in NAMES if Shard(i, count).holds(name)] for i in range(1, count + 1)]
    assert sorted(name for share in shares for name in share) == NAMES
    mean = len(NAMES) / count
    assert all(abs(len(share) - mean) < 5 * mean**0.5 + 1 for share in shares)


def test_a_share_is_the_same_in_another_process():
    code = (
        "from medzsad.storage.hashing import Shard\n"
        "print(*(i for i in range(2000) if Shard(3, 7).holds(f'case{i:04d}')))"
    )
    # The seed of Python's own hash differs between the two.
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": "5"}
    )
    here = [i for i, name in enumerate(NAMES) if Shard(3, 7).holds(name)]
    assert [int(word) for word in answer.stdout.split()] == here


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", "1/9999999", ""])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(BadInput, match="from 1 to n"):
        Shard.parse(text)


def test_text():
    assert str(Shard.parse(" 3/10 ")) == "3/10"


def test_hashes_are_of_contents(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    assert hash_files(tmp_path / "a") == hash_files(tmp_path / "b") != hash_files(tmp_path / "c")
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "1").write_text("one")
    assert hash_files(folder) == hash_files(tmp_path / "a")
    # What sha256sum says of the file.
    assert hash_files(tmp_path / "a") == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"gone\.png cannot be read"):
        hash_files(tmp_path / "gone.png")
    with pytest.raises(ModelNotReady):
        hash_files(tmp_path / "gone.png", kind=ModelNotReady)


def test_settings_have_one_hash_in_any_order() -> None:
    assert hash_settings({"a": 1, "b": (2, 3)}) == hash_settings({"b": [2, 3], "a": 1})
    assert hash_settings({"a": 1}) != hash_settings({"a": 2})
    assert hash_settings({"a": Path("x")}) == hash_settings({"a": "x"})


def test_tensors_have_one_hash_in_any_order_and_another_for_any_change() -> None:
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    first = hash_tensors(tensors)
    assert hash_tensors(dict(reversed(tensors.items()))) == first
    others = (
        {**tensors, "a": torch.arange(6.0).reshape(2, 3)},
        {**tensors, "b": torch.ones(2, dtype=torch.float16)},
        {"a": tensors["a"], "c": tensors["b"]},
    )
    hashes = {first, *(hash_tensors(other) for other in others)}
    assert len(hashes | {hash_tensors(tensors, settings_text({}))}) == 5
