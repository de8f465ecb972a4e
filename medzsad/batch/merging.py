"""What many scans have in common: one table of scores and one index page."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.batch.records import DONE, Row
from medzsad.batch.store import READERS, SETTINGS, THUMBNAIL, ResultStore, place_of
from medzsad.batch.table import TABLE, ordered_by, read_parts, write_table
from medzsad.errors import BadInput, certain
from medzsad.storage.text_files import parse_json

if TYPE_CHECKING:
    import pyarrow

    from medzsad.results.html.index import IndexEntry

# A page with more pictures is none that a browser likes to open.
INDEX_SCANS = 1000


@dataclass(frozen=True)
class Merged:
    """What was merged.

    Attributes:
        done, failed: how many scans.
        indexed: how many of them the index page lists; 0 without a page.
        notes: on shards that are missing or not finished.
    """

    done: int
    failed: int
    indexed: int
    notes: tuple[str, ...]


def merge(store: ResultStore) -> Merged:
    """Merge the parts of all runs and shards into one table and, of reports, an index page.

    The index lists the scans with the highest scores, at most :data:`INDEX_SCANS`.

    Raises:
        BadInput: if there are no parts, or one cannot be read.
        OutputNotWritable: if table or page cannot be written.
    """
    table, notes = read_parts(store)
    write_table(store, TABLE, table, {"scans": table.num_rows})
    done = table.filter([status == DONE for status in table.column("status").to_pylist()])
    indexed = _write_index(store, done) if _with_reports(store) else 0
    return Merged(done.num_rows, table.num_rows - done.num_rows, indexed, tuple(notes))


def _with_reports(store: ResultStore) -> bool:
    settings = parse_json(store.read(SETTINGS) or b"{}", f"{store.url}/{SETTINGS}")
    if not isinstance(settings, dict):
        raise BadInput(f"{store.url}/{SETTINGS} is damaged; run again what wrote it, into another place.")
    return bool(settings.get("report"))


def _write_index(store: ResultStore, done: pyarrow.Table) -> int:
    from medzsad.results.html.index import INDEX_NAME, write_index

    best = ordered_by(done, ("score", "descending"), ("scan", "ascending")).slice(0, INDEX_SCANS)
    rows = [Row(**row) for row in best.to_pylist()]
    entries = index_entries(store, [(row, row.scan, f"{row.results}/{row.scan}_report.html") for row in rows])
    if not entries:
        return 0
    with tempfile.TemporaryDirectory(prefix="medzsad-") as folder:
        page = write_index(entries, Path(folder), total=done.num_rows)
        store.write(INDEX_NAME, page.read_bytes())
    return len(entries)


def index_entries(store: ResultStore, done: list[tuple[Row, str, str]]) -> list[IndexEntry]:
    """Return the lines of an index page for the scans that have a picture.

    Args:
        store: of their results.
        done: row, name and report of each, the report relative to the page.
    """
    from medzsad.results.html.index import IndexEntry

    with ThreadPoolExecutor(READERS) as readers:
        pictures = readers.map(lambda one: store.read(f"{place_of(one[0].scan)}/{THUMBNAIL}"), done)
        return [
            IndexEntry(
                name, report, certain(row.score), certain(row.lesions), row.largest_ml, row.model,
                str(row.modality), picture,
            )
            for (row, name, report), picture in zip(done, pictures, strict=True)
            if picture is not None
        ]  # fmt: skip
