"""What users open of a run of several scans: ``scores.csv``, ``lesions.csv`` and the index of reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from medzsad.batch.records import DONE, Row
from medzsad.batch.store import FLAT, READERS, THUMBNAIL, ResultStore, place_of
from medzsad.errors import BadInput, OutputNotWritable, certain
from medzsad.results.html.index import INDEX_NAME, IndexEntry, index_page
from medzsad.results.ranking import ranked_table
from medzsad.results.tables import (
    FILES,
    LESION_COLUMNS,
    LESIONS,
    SCORE_COLUMNS,
    SCORES,
    Table,
    is_ours,
    scans_in,
)
from medzsad.storage.text_files import parse_json

CHUNK = 1024  # scans whose reports are read at a time
INDEX_SCANS = 1000  # a page with more pictures is none that a browser likes to open
BEST = 30  # scans that the terminal shows
NOTES = 10  # that are said of a cohort


@dataclass(frozen=True)
class RankedScan:
    """A scan of a run.

    Attributes:
        name: how its results are called.
        row: what became of it.
    """

    name: str
    row: Row

    def file(self, ending: str) -> str:
        """Return the path of one of its results, relative to the tables."""
        return (
            f"{self.name}{ending}" if self.row.results == FLAT else f"{self.row.results}/{self.name}{ending}"
        )


@dataclass
class Summary:
    """What the files of a run say in short.

    Attributes:
        best: the scans with the highest scores, at most :data:`BEST`.
        done, failed: how many scans.
        indexed: how many scans the index lists; 0 without one.
        notes: what reports of several scans note, each once, with how many.
    """

    best: list[RankedScan] = field(default_factory=list)
    done: int = 0
    failed: int = 0
    indexed: int = 0
    notes: list[str] = field(default_factory=list)


def table_places(url: str) -> dict[str, str]:
    """Return where the tables of results at ``url`` lie."""
    return {"scores": f"{url}/{SCORES}", "lesions": f"{url}/{LESIONS}"}


def ranked(scans: Iterable[RankedScan]) -> list[RankedScan]:
    """Return scans in the order of all tables: highest score first, and behind them those without."""
    return sorted(
        scans, key=lambda scan: (-(scan.row.score if scan.row.score is not None else -1), scan.name)
    )


def write_summary(store: ResultStore, scans: Iterable[RankedScan], *, with_index: bool) -> Summary:
    """Write ``scores.csv``, ``lesions.csv`` and, ``with_index``, ``index.html`` of :func:`ranked` scans.

    Candidates and notes come from the scans' reports, which are read a few at a time.

    Raises:
        OutputNotWritable: if a file cannot be written, or would replace one that medzsad did not write.
    """
    for name in FILES if with_index else FILES[:2]:
        content = store.read(store.top(name))
        if content is not None and not is_ours(name, content):
            raise OutputNotWritable(
                f"{store.url}/{name} was not written by medzsad and would be replaced; choose another folder"
            )
    summary, notes, unread = Summary(), Counter[str](), 0
    scores, lesions = Table(SCORE_COLUMNS), Table(LESION_COLUMNS)
    shown: list[RankedScan] = []
    failures: list[tuple[str, str]] = []
    for scan, report in _with_reports(store, scans):
        row = scan.row
        if row.status != DONE:
            summary.failed += 1
            if len(failures) < INDEX_SCANS:
                failures.append((scan.name, str(row.error)))
            scores.add(None, scan.name, *(getattr(row, name, None) for name in SCORE_COLUMNS[2:]))
            continue
        summary.done += 1
        summary.best += [scan] if summary.done <= BEST else []
        shown += [scan] if with_index and summary.done <= INDEX_SCANS else []
        facts = (getattr(row, name, scan.file(".json")) for name in SCORE_COLUMNS[2:])
        scores.add(summary.done, scan.name, *facts)
        if report is None:
            unread += 1
            continue
        notes.update(set(report["notes"]))
        lesions.add_lesions(scan.name, report)
    store.write(store.top(SCORES), scores.content())
    store.write(store.top(LESIONS), lesions.content())
    entries = _index_entries(store, shown)
    if entries:
        page = index_page(entries, failures, done=summary.done, failures=summary.failed)
        store.write(store.top(INDEX_NAME), page.encode())
        summary.indexed = len(entries)
    summary.notes = [
        f"{count} of {summary.done} scans: {note}" for note, count in notes.most_common(NOTES) if count > 1
    ]
    if unread:
        summary.notes.append(f"{unread} scans have no report that can be read: {LESIONS} is without them")
    return summary


def remove_outdated(store: ResultStore, names: set[str]) -> None:
    """Remove tables and index of an earlier run that list one of these scans: its results are others now."""
    for name in FILES:
        content = store.read(store.top(name))
        if content is not None and is_ours(name, content) and names & scans_in(name, content):
            store.remove(store.top(name))


def ranked_lines(summary: Summary) -> list[str]:
    """Return the scans with the highest scores as a table for the terminal, at most 80 columns wide."""
    rows = ((scan.name, scan.row) for scan in summary.best)
    lines = ranked_table(
        (name, certain(row.score), certain(row.lesions), row.largest_ml, row.seconds) for name, row in rows
    )
    if summary.done > len(summary.best):
        lines.append(f"     ... {summary.done - len(summary.best)} more in {SCORES}")
    return lines


def _with_reports(
    store: ResultStore, scans: Iterable[RankedScan]
) -> Iterator[tuple[RankedScan, dict[str, Any] | None]]:
    """Yield each scan with its report; None where it failed, or the report cannot be read."""
    rest = iter(scans)
    with ThreadPoolExecutor(READERS) as readers:
        while chunk := list(islice(rest, CHUNK)):
            yield from zip(chunk, readers.map(lambda scan: _report(store, scan), chunk), strict=True)


def _report(store: ResultStore, scan: RankedScan) -> dict[str, Any] | None:
    if scan.row.status != DONE:
        return None
    try:
        report = parse_json(store.read(store.top(scan.file(".json"))) or b"", "report")
        return report if {"notes", "scan", "lesions"} <= report.keys() else None
    except (BadInput, AttributeError):
        return None


def _index_entries(store: ResultStore, scans: list[RankedScan]) -> list[IndexEntry]:
    """Return the lines of the index for the scans that have a picture."""
    with ThreadPoolExecutor(READERS) as readers:
        pictures = readers.map(lambda scan: store.read(f"{place_of(scan.row.scan)}/{THUMBNAIL}"), scans)
        return [
            IndexEntry(
                scan.name, scan.file("_report.html"), certain(scan.row.score), certain(scan.row.lesions),
                scan.row.largest_ml, scan.row.model, str(scan.row.modality), picture,
            )
            for scan, picture in zip(scans, pictures, strict=True)
            if picture is not None
        ]  # fmt: skip
