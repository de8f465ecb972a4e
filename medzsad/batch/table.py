"""The table of scores as Parquet: parts that runs and shards write, merged into one."""

from __future__ import annotations

import io
import json
import time
from collections import defaultdict
from dataclasses import InitVar, asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from medzsad.batch.records import COLUMNS, Row, is_sound
from medzsad.batch.store import SETTINGS, ResultStore
from medzsad.batch.summary import (
    CHUNK,
    RankedScan,
    Summary,
    ranked_lines,
    table_places,
    write_summary,
)
from medzsad.errors import BadInput, MedzsadError
from medzsad.limits import check_limit
from medzsad.results.html.index import INDEX_NAME
from medzsad.results.tables import LESIONS, SCORES
from medzsad.storage.hashing import Shard, hash_of
from medzsad.storage.text_files import parse_json

if TYPE_CHECKING:
    import pyarrow

PARTS, TABLE = "parts", "scores.parquet"
PART_ROWS = 20_000
FLUSH_S = 60.0
FACTS = b"medzsad"
TYPES = {str: "string", float: "float64", int: "int32"}


def require_pyarrow() -> Any:
    """Return the modules that read and write Parquet.

    Raises:
        BadInput: if pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BadInput(
            'the table of a cohort\'s scores needs pyarrow; pip install "medzsad[cohort]".'
        ) from error
    return pyarrow


def schema() -> pyarrow.Schema:
    """Return the columns of :class:`~medzsad.batch.records.Row`."""
    arrow = require_pyarrow()
    return arrow.schema([(name, TYPES[kind]) for name, kind in COLUMNS.items()])


@dataclass
class PartWriter:
    """Writes a run's rows in parts of :data:`PART_ROWS`, so that no more than that are in memory.

    Args:
        store: where to.
        ids: of all scans of the cohort, whatever the shard.
        shard: of this run.
    """

    store: ResultStore
    ids: InitVar[list[str]]
    shard: Shard
    _rows: list[Row] = field(default_factory=list)
    _number: int = 0
    _written: float = field(default_factory=time.monotonic)

    def __post_init__(self, ids: list[str]) -> None:
        # Another manifest's parts have other names: a cohort may grow by one after another.
        cohort = f"{hash_of(json.dumps(sorted(ids))):016x}"
        self._facts = {"cohort": cohort, "scans": len(ids), "shard": [self.shard.number, self.shard.count]}
        shard = f"-shard-{self.shard.number}-of-{self.shard.count}" if self.shard.count > 1 else ""
        self._prefix = f"{cohort}{shard}"

    def add(self, row: Row) -> None:
        """Take a row; from time to time all are written."""
        self._rows.append(row)
        if len(self._rows) >= PART_ROWS:
            self.flush()
            self._rows, self._number = [], self._number + 1
        elif time.monotonic() - self._written > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write the rows of the current part.

        Raises:
            OutputNotWritable: if it cannot be written.
        """
        if self._rows:
            place = f"{PARTS}/{self._prefix}-{self._number:05d}.parquet"
            write_table(self.store, place, self._rows, self._facts)
        self._written = time.monotonic()


def write_table(
    store: ResultStore, path: str, rows: list[Row] | pyarrow.Table, facts: dict[str, Any]
) -> None:
    """Write rows as a Parquet file with ``facts`` (JSON) in its metadata.

    Raises:
        OutputNotWritable: if it cannot be written.
    """
    arrow = require_pyarrow()
    table: Any = rows
    if isinstance(rows, list):
        table = arrow.Table.from_pylist([asdict(row) for row in rows], schema=schema())
    buffer = io.BytesIO()
    table = table.replace_schema_metadata({FACTS: json.dumps(facts).encode()})
    # With checksums, so that a bit that a disk turned is no score.
    arrow.parquet.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    store.write(path, buffer.getvalue())


def read_parts(store: ResultStore) -> tuple[pyarrow.Table, list[str]]:
    """All parts of a cohort as one table.

    Returns:
        One row for each scan, in the order of their ids: the newest, where parts differ. And notes on what
        is not finished.

    Raises:
        BadInput: if there are no parts, or one cannot be read.
    """
    arrow = require_pyarrow()
    tables = []
    cohorts: dict[tuple[str, int], tuple[set[str], set[tuple[int, int]]]]
    cohorts = defaultdict(lambda: (set(), set()))
    for name in store.names(PARTS):
        if not name.endswith(".parquet"):
            continue
        try:
            table = _read(arrow, store.read(f"{PARTS}/{name}") or b"")
            cohort, total, shard = _facts(table)
            table = table.select(schema().names).cast(schema()).replace_schema_metadata(None)
            columns = (table.column(key).to_pylist() for key in ("scan", "status", "score", "results"))
            if not all(map(is_sound, *columns)) or table.column("finished").null_count:
                raise ValueError("rows that no run writes")
            scans, shards = cohorts[cohort, total]
            scans.update(table.column("scan").to_pylist())
            if len(scans) > total:
                raise ValueError("more scans than there are")
            shards.add(shard)
        except (arrow.ArrowException, MedzsadError, OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{store.url}/{PARTS}/{name} is damaged, or no part of a table of scores; delete it and run "
                "again what wrote it: only its rows are made anew, from the results that are there."
            ) from error
        tables.append(table)
    if not tables:
        raise BadInput(f"{store.url} holds no results of a cohort ({PARTS}/*.parquet); check the path.")
    return _newest(arrow.concat_tables(tables)), _unfinished(cohorts)


def _facts(table: pyarrow.Table) -> tuple[str, int, tuple[int, int]]:
    """Cohort, its number of scans, and the shard, from a part's metadata.

    Raises:
        BadInput, KeyError, TypeError, ValueError: if they are not there, or are none.
    """
    facts = parse_json((table.schema.metadata or {})[FACTS], "metadata")
    number, count = facts["shard"]
    cohort, total = facts["cohort"], facts["scans"]
    if not isinstance(cohort, str) or not isinstance(total, int) or Shard.parse(f"{number}/{count}") is None:
        raise ValueError(facts)
    return cohort, total, (number, count)


def _read(arrow: Any, content: bytes) -> pyarrow.Table:
    """Return a Parquet file's table, read in this thread.

    Arrow's own may abort the program where it ends soon after
    (https://github.com/apache/arrow/issues/34314)."""
    source = arrow.BufferReader(content)
    with arrow.parquet.ParquetFile(source, pre_buffer=False, page_checksum_verification=True) as file:
        check_limit(file.metadata.num_rows, "MEDZSAD_MAX_VOXELS", "a part", "rows")
        return file.read(use_threads=False)


def ordered_by(table: pyarrow.Table, *keys: tuple[str, str]) -> pyarrow.Table:
    """Return the rows in another order, sorted in this thread, which ``Table.sort_by`` does not do."""
    from pyarrow import compute

    return table.take(compute.sort_indices(table, sort_keys=list(keys)))


def _newest(table: pyarrow.Table) -> pyarrow.Table:
    ordered = ordered_by(table, ("scan", "ascending"), ("finished", "descending")).combine_chunks()
    scans = ordered.column("scan").to_pylist()
    return ordered.filter([i == 0 or scan != scans[i - 1] for i, scan in enumerate(scans)])


def _unfinished(cohorts: dict[tuple[str, int], tuple[set[str], set[tuple[int, int]]]]) -> list[str]:
    notes = []
    for (_, total), (scans, shards) in sorted(cohorts.items()):
        if len(scans) == total:
            continue
        # Of a shard without scans there is no part, so that only a cohort with a gap tells of one.
        counts = sorted({count for _, count in shards})
        absent = [f"{i}/{n}" for n in counts for i in range(1, n + 1) if (i, n) not in shards]
        listed = ", ".join(absent[:20]) + (", ..." if len(absent) > 20 else "")
        shards_note = f" (shards without results: {listed})" if absent else ""
        notes.append(f"{total - len(scans)} of {total} scans are still to be done{shards_note}")
    return notes


@dataclass(frozen=True)
class Merged:
    """What was merged.

    Attributes:
        summary: of all scans.
        notes: on shards that are missing or not finished.
    """

    summary: Summary
    notes: tuple[str, ...]

    def lines(self, url: str) -> list[str]:
        """Return what the terminal says of the tables at ``url``."""
        summary, tables = self.summary, f"{TABLE}, {SCORES}, {LESIONS}"
        index = f"; {summary.indexed} reports in {INDEX_NAME}" if summary.indexed else ""
        return [
            *ranked_lines(summary),
            f"{summary.done} scans done, {summary.failed} failed, in {url}: {tables}{index}",
        ]

    def document(self, url: str) -> dict[str, Any]:
        """JSON-serialisable; ``url`` is where the tables lie."""
        summary = self.summary
        return {
            "table": f"{url}/{TABLE}",
            "tables": table_places(url),
            "done": summary.done,
            "failed": summary.failed,
            "indexed": summary.indexed,
            "notes": list(self.notes),
        }


def merge(store: ResultStore) -> Merged:
    """Merge the parts of all runs and shards into one table, CSV tables and, of reports, an index page.

    Raises:
        BadInput: if there are no parts, or one cannot be read.
        OutputNotWritable: if table or page cannot be written.
    """
    table, notes = read_parts(store)
    write_table(store, TABLE, table, {"scans": table.num_rows})
    best = ordered_by(table, ("score", "descending"), ("scan", "ascending"))
    rows = (Row(**row) for batch in best.to_batches(max_chunksize=CHUNK) for row in batch.to_pylist())
    scans = (RankedScan(row.scan, row) for row in rows)
    summary = write_summary(store, scans, with_index=_has_reports(store))
    return Merged(summary, tuple(notes))


def _has_reports(store: ResultStore) -> bool:
    settings = parse_json(store.read(SETTINGS) or b"{}", f"{store.url}/{SETTINGS}")
    if not isinstance(settings, dict):
        raise BadInput(f"{store.url}/{SETTINGS} is damaged; run again what wrote it, into another place.")
    return bool(settings.get("report"))
