"""What became of the scans of a run: counts, reasons, and what the terminal and ``--json`` say of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medzsad.batch.manifest import ScanItem
from medzsad.batch.records import DONE, EXIT_CODES, Row, shown, without_names
from medzsad.batch.store import OUTCOME, FlatStore, place_of
from medzsad.batch.summary import (
    RankedScan,
    Summary,
    ranked,
    ranked_lines,
    remove_outdated,
    table_places,
    write_summary,
)
from medzsad.batch.table import TABLE, Merged
from medzsad.detectors.normal_scores import in_words
from medzsad.errors import BadInput, OutputNotWritable, certain
from medzsad.results.ranking import DISCLAIMER
from medzsad.scans.dicom.web import parse_remote
from medzsad.scans.scan import as_text
from medzsad.storage.text_files import parse_json

REASONS = 20  # that are kept and shown of a cohort


@dataclass
class Outcome:
    """Counts of one run of a cohort, whose rows are in its table.

    Attributes:
        url: where the results lie.
        total: scans of the run's share.
        before: of these, done or failed in an earlier run, with the same input and settings.
        done, failed: of these, now or before.
        retried: of these, begun again because a worker was lost.
        reasons: name and reason of failures, the first :data:`REASONS` of a cohort.
        seconds: the run took.
        merged: of the whole cohort; None for a shard alone.
    """

    url: str
    total: int
    before: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    merged: Merged | None = None
    _codes: Counter[int] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.retried += row.attempts > 1
        if row.status == DONE:
            self.done += 1
        else:
            self.fail(row.scan, str(row.error), row.fault or "internal")

    def fail(self, name: str, reason: str, fault: str = "input") -> None:
        """Count a failure, of one of the kinds that ``Row.fault`` has."""
        self.failed += 1
        self._codes[EXIT_CODES.get(fault, 1)] += 1
        if len(self.reasons) < self._reasons_kept:
            self.reasons.append((name, f"internal error: {reason}" if fault == "internal" else reason))

    @property
    def _reasons_kept(self) -> int:
        return REASONS

    @property
    def exit_code(self) -> int:
        """0 all done, 2 some input was bad, 1 something broke that is not the input's fault."""
        return min(self._codes, default=0)

    def document(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {
            "results": self.url,
            "scans": self.total,
            "done": self.done,
            "failed": self.failed,
            "already_settled": self.before,
            "retried": self.retried,
            "seconds": round(self.seconds, 3),
            "reasons": [{"scan": scan, "error": error} for scan, error in self.reasons],
            "table": None if self.merged is None else f"{self.url}/{TABLE}",
            "tables": None if self.merged is None else table_places(self.url),
        }

    def lines(self) -> list[str]:
        """For the terminal."""
        now = self.done + self.failed - self.before
        rate = f" ({now / self.seconds:.2g} scans/s)" if now and self.seconds > 0 else ""
        lines = [
            f"{self.done} of {self.total} scans done, {self.failed} failed; {self.before} known from earlier "
            f"runs, {now} new in {self.seconds:.1f} s{rate}"
        ]
        if self.retried:
            lines.append(f"{self.retried} begun again because a worker was lost: see the column attempts")
        if self.merged is None:
            lines.append(f"results in {self.url}; when all shards are done: medzsad cohort merge {self.url}")
        else:
            lines = [*self.merged.lines(self.url), *lines]
        return [*lines, DISCLAIMER]

    def failures(self) -> list[str]:
        """Return a line for each failure that is kept."""
        # A reason that begins with the scan need not name it twice.
        lines = [
            error if error.startswith((f"{name} ", f"{name}:", f"{name},")) else f"{name}: {error}"
            for name, error in self.reasons
        ]
        if self.failed > len(self.reasons):
            lines.append(f"{self.failed - len(self.reasons)} more failed: see the column error of the table")
        return lines


@dataclass(frozen=True)
class Result:
    """A scan that is done.

    Attributes:
        input: path as given, or URL.
        row: what became of it.
        report: see docs/outputs.md.
        files: what was written, by kind.
    """

    input: str
    row: Row
    report: dict[str, Any]
    files: dict[str, Path]


class FolderOutcome(Outcome):
    """What became of a few scans in one folder: their reports are listed, in the order of the inputs.

    Args:
        store: where the results lie.
        items: the scans.
    """

    def __init__(self, store: FlatStore, items: list[ScanItem]) -> None:
        super().__init__(store.url, len(items))
        self._store = store
        self._items = {item.id: item for item in items}
        self.rows: dict[str, Row] = {}
        self.summary = Summary()

    @property
    def _reasons_kept(self) -> int:
        return self.total * 2  # a scan that is done may yet not be stored on its server

    def add(self, row: Row) -> None:
        """Count a row, and keep it."""
        self.rows[row.scan] = row
        super().add(row)

    def fail(self, name: str, reason: str, fault: str = "input") -> None:
        """Count a failure, told of the input that has the id ``name``."""
        super().fail(_source(self._items[name]), reason, fault)

    def ordered(self) -> list[Row]:
        """Return the rows of what is done, in the order of the inputs."""
        rows = (self.rows[name] for name in self._items if name in self.rows)
        return [row for row in rows if row.status == DONE]

    def results(self) -> list[Result]:
        """Return what is done, read from the folder, in the order of the inputs.

        Raises:
            OutputNotWritable: if somebody else takes it away meanwhile.
        """
        return [self._result(row) for row in self.ordered()]

    def _result(self, row: Row) -> Result:
        name = row.scan
        try:
            record = parse_json(self._store.read(f"{place_of(name)}/{OUTCOME}") or b"{}", OUTCOME)
            files = {kind: self._store.folder / file for kind, file in record["files"].items()}
            report = parse_json(files["json"].read_bytes(), files["json"])
        except (BadInput, KeyError, OSError) as error:
            raise OutputNotWritable(
                f"{self._store.url}: somebody changes the results of {name} meanwhile; run the command again"
            ) from error
        return Result(_source(self._items[name]), row, report, files)

    def document(self) -> dict[str, Any]:
        """JSON-serialisable: ``scans`` (input, files, report), ``failed`` (input, error), ``tables``."""
        return {
            "scans": [
                {
                    "input": shown(one.input),
                    "files": {kind: str(path) for kind, path in one.files.items()},
                    **one.report,
                }
                for one in self.results()
            ],
            "failed": [{"input": shown(name), "error": error} for name, error in self.reasons],
            "tables": table_places(self.url) if self.total > 1 and self.done else None,
        }

    def summarise(self, *, with_index: bool) -> None:
        """Write the tables of several scans; of one, take away those that an earlier run left of it.

        Raises:
            OutputNotWritable: see :func:`~medzsad.batch.summary.write_summary`.
        """
        names = {result.row.scan: result.report["name"] for result in self.results()}
        scans = ranked(self._ranked_scan(row, names) for row in self.rows.values())
        if self.total == 1 or not with_index:
            remove_outdated(self._store, set(names.values()))
        if self.total > 1 and names:
            self.summary = write_summary(self._store, scans, with_index=with_index)
        else:
            self.summary = Summary(scans[: len(names)], len(names))

    def _ranked_scan(self, row: Row, names: dict[str, str]) -> RankedScan:
        """Return a scan of the tables, whose reason tells no folder: people name them after patients."""
        item = self._items[row.scan]
        if row.status == DONE:
            return RankedScan(names[row.scan], row)
        name = as_text(Path(item.source).name) if item.fault else item.id
        error = without_names(str(row.error), replace(item, id=name), ())
        return RankedScan(name, replace(row, error=error))

    def lines(self) -> list[str]:
        """Return a summary for the terminal; at most 80 columns, but for the folder's name."""
        if not self.done:
            return []
        results = self.results()
        count = sum(len(one.files) for one in results)
        contexts = (
            (one.report["name"], in_words(one.report.get("score_context", ())))  # older reports have none
            for one in results
        )
        notes = [f"{name}: score {text}" for name, text in contexts if text]
        known = (
            f", of {self.before} scans from an earlier run (`fresh` does them again)" if self.before else ""
        )
        return [*ranked_lines(self.summary), *notes, f"{count} files in {self.url}{known}", DISCLAIMER]


def _source(item: ScanItem) -> str:
    return str(certain(parse_remote(item.source))) if item.is_remote else item.source
