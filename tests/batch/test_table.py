"""The table of scores, apart from the runs that fill it (test_run.py)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medzsad.batch.records import Row
from medzsad.batch.store import SETTINGS, ResultStore, open_store, place_of
from medzsad.batch.table import FACTS, PARTS, PartWriter, read_parts
from medzsad.errors import BadInput
from medzsad.storage.hashing import Shard

pytest.importorskip("pyarrow", reason="pyarrow is not installed (medzsad[cohort])")

MERGE = """
import os, sys
from medzsad.batch.records import Row
from medzsad.batch.store import SETTINGS, open_store
from medzsad.batch.table import PartWriter, merge
from medzsad.storage.hashing import Shard

store = open_store(sys.argv[1])
store.write(SETTINGS, b"{}")
names = ["b", "a"]
for number in (1, 2):
    writer = PartWriter(store, names, Shard(number, 2))
    fields = dict.fromkeys(Row.__dataclass_fields__) | {"scan": names[number - 1], "status": "failed"}
    fields["finished"] = ""
    writer.add(Row(**fields))
    writer.flush()
before = len(os.listdir("/proc/self/task"))
assert merge(store).summary.failed == 2
print(before, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_merging_leaves_no_thread_that_could_abort_the_end_of_the_program(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MERGE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split()
    assert before == after


def part(store: ResultStore, ids: list[str], number: int = 1, count: int = 1, **fields: Any) -> Path:
    """The file of a part with a done row of each scan of the shard."""
    writer = PartWriter(store, ids, Shard(number, count))
    for scan in ids:
        if Shard(number, count).holds(scan):
            given = {"scan": scan, "status": "done", "score": 0.5, "results": place_of(scan), "finished": "1"}
            writer.add(Row(**(dict.fromkeys(Row.__dataclass_fields__) | given | fields)))
    writer.flush()
    return Path(store.url) / PARTS / f"{writer._prefix}-00000.parquet"


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    found = open_store(tmp_path / "out")
    found.write(SETTINGS, b"{}")
    return found


def test_a_part_that_is_damaged_anywhere_is_refused_by_name_and_never_counted(store: ResultStore) -> None:
    ids = [f"case{number}" for number in range(40)]
    path = part(store, ids)
    whole = path.read_bytes()
    expected, notes = read_parts(store)
    assert (expected.num_rows, notes) == (40, [])
    dice = random.Random(0)
    refused = []
    for turn in range(300):
        data = bytearray(whole)
        if turn % 3:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        else:
            del data[dice.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            table, notes = read_parts(store)
        except BadInput as error:
            refused.append(str(error))
        else:  # what is not of the rows: statistics, names of the writer
            columns = ("scan", "status", "score", "results")
            assert table.select(columns).equals(expected.select(columns)) or notes, turn
    assert len(refused) > 200
    for line in refused:
        assert line.startswith(f"{path} is damaged, or no part of a table of scores; delete it and run again")
        assert "\n" not in line


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "banana"},
        {"status": None},
        {"score": None},
        {"score": float("nan")},
        {"score": 7.0},
        {"results": "../../../etc"},
        {"results": None},
        {"status": "failed"},  # with a score
        {"finished": None},
    ],
)
def test_rows_that_no_run_writes_are_refused(store: ResultStore, fields: dict[str, Any]) -> None:
    path = part(store, ["a", "b"], **fields)
    with pytest.raises(BadInput, match=path.name):
        read_parts(store)


@pytest.mark.parametrize(
    "facts",
    [
        b"[]", b"[" * 100_000, b"{}", b"\xff", b'{"cohort": 1, "scans": 2, "shard": [1, 1]}',
        b'{"cohort": "x", "scans": "2", "shard": [1, 1]}', b'{"cohort": "x", "scans": 1, "shard": [1, 1]}',
        b'{"cohort": "x", "scans": 2, "shard": [1, 1000000000]}', b'{"cohort": "x", "scans": 2, "shard": 1}',
    ],
)  # fmt: skip
def test_metadata_of_somebody_else_are_refused(store: ResultStore, facts: bytes) -> None:
    import pyarrow.parquet

    path = part(store, ["a", "b"])
    table = pyarrow.parquet.ParquetFile(path).read(use_threads=False)
    pyarrow.parquet.write_table(table.replace_schema_metadata({FACTS: facts}), path)
    with pytest.raises(BadInput, match=path.name):
        read_parts(store)


def test_foreign_tables_pipes_folders_and_empty_files_are_refused(store: ResultStore) -> None:
    import pyarrow
    import pyarrow.parquet

    part(store, ["a", "b"])
    odd = Path(store.url) / PARTS / "x.parquet"
    made = (
        lambda: odd.write_bytes(b""),
        lambda: odd.write_bytes(b"PAR1" * 9),
        lambda: pyarrow.parquet.write_table(pyarrow.table({"scan": ["a"]}), odd),
        lambda: os.mkfifo(odd),
        lambda: odd.mkdir(),
        lambda: odd.symlink_to("nowhere"),
    )
    for make in made:
        make()
        with pytest.raises(BadInput, match=r"parts/x\.parquet is damaged, or no part"):
            read_parts(store)
        odd.rmdir() if odd.is_dir() else odd.unlink()
    assert read_parts(store)[0].num_rows == 2
