"""The table of scores, apart from the runs that fill it (test_run.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed (medzsad[cohort])")

MERGE = """
import os, sys
from medzsad.batch.merging import merge
from medzsad.batch.records import Row
from medzsad.batch.store import SETTINGS, open_store
from medzsad.batch.table import PartWriter
from medzsad.storage.sharding import Shard

store = open_store(sys.argv[1])
store.write(SETTINGS, b"{}")
names = ["b", "a"]
for number in (1, 2):
    writer = PartWriter(store, names, Shard(number, 2))
    fields = dict.fromkeys(Row.__dataclass_fields__) | {"scan": names[number - 1], "status": "done"}
    writer.add(Row(**fields))
    writer.flush()
before = len(os.listdir("/proc/self/task"))
assert merge(store).done == 2
print(before, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_merging_leaves_no_thread_that_could_abort_the_end_of_the_program(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MERGE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split()
    assert before == after
