"""What became of a cohort, in numbers and reasons; rows themselves are in the table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from medzsad.batch.merging import Merged
from medzsad.batch.records import DONE, EXIT_CODES, Row
from medzsad.batch.table import TABLE

REASONS = 20  # that are kept and shown


@dataclass
class Summary:
    """Counts of one run.

    Attributes:
        url: where the results lie.
        total: scans of the run's share.
        before: of these, done or failed in an earlier run, with the same input and settings.
        done, failed: of these, now or before.
        retried: of these, begun again because a worker was lost.
        reasons: id and reason of the first :data:`REASONS` failures.
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
            return
        self.failed += 1
        self._codes[EXIT_CODES.get(row.fault or "internal", 1)] += 1
        if len(self.reasons) < REASONS:
            kind = {"internal": "internal error: "}.get(row.fault or "", "")
            self.reasons.append((row.scan, f"{kind}{row.error}"))

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
            table = f"{self.merged.done + self.merged.failed} scans in {self.url}/{TABLE}"
            lines.append(table + (f", {self.merged.indexed} in index.html" if self.merged.indexed else ""))
        return [*lines, "Research use only - not for diagnosis."]

    def failures(self) -> list[str]:
        """Return a line for each of the first failures."""
        # A reason that begins with the scan need not name it twice.
        lines = [
            error if error.startswith(f"{scan} ") else f"{scan}: {error}" for scan, error in self.reasons
        ]
        if self.failed > len(self.reasons):
            lines.append(f"{self.failed - len(self.reasons)} more failed: see the column error of the table")
        return lines
