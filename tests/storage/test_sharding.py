from __future__ import annotations

import subprocess
import sys

import pytest

from medzsad.errors import BadInput
from medzsad.storage.sharding import Shard

NAMES = [f"case{number:04d}" for number in range(2000)]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_shards_hold_everything_exactly_once_and_about_as_much_each(count):
    shares = [[name for name in NAMES if Shard(i, count).holds(name)] for i in range(1, count + 1)]
    assert sorted(name for share in shares for name in share) == NAMES
    mean = len(NAMES) / count
    assert all(abs(len(share) - mean) < 5 * mean**0.5 + 1 for share in shares)


def test_a_share_is_the_same_in_another_process():
    code = (
        "from medzsad.storage.sharding import Shard\n"
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
