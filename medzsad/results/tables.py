"""The CSV tables of several scans, ``scores.csv`` and ``lesions.csv``. Imports neither NumPy nor torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from medzsad.results.html.index import INDEX_NAME, is_index, reports_in

SCORES, LESIONS = "scores.csv", "lesions.csv"
FILES = (SCORES, LESIONS, INDEX_NAME)
SCORE_COLUMNS = (
    "rank", "scan", "status", "score", "lesions", "largest_ml", "threshold", "modality", "model", "report",
    "error", "fault", "settings", "version",
)  # fmt: skip
LESION_COLUMNS = (
    "scan", "lesion", "score", "maximum", "mean", "volume_ml", "voxels",
    *(f"{point}_{axis}_mm" for point in ("center", "peak") for axis in "xyz"),
    *(f"{point}_{axis}" for point in ("center", "peak", "first", "last") for axis in "ijk"),
)  # fmt: skip
"""See docs/outputs.md. Nothing in them tells one run from another: a run in parts has the same tables."""


class Table:
    """A CSV file in memory: UTF-8, RFC 4180 quoting, ``\\n``; nothing for None."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(columns)

    def add(self, *values: Any) -> None:
        """Write a row."""
        self._writer.writerow([_harmless(value) if isinstance(value, str) else value for value in values])

    def add_lesions(self, scan: str, report: dict[str, Any]) -> None:
        """Write a row of :data:`LESION_COLUMNS` for each candidate that a report shows."""
        has_mm = report["scan"]["affine"] is not None
        for number, lesion in enumerate(report["lesions"], 1):
            self.add(scan, number, *_lesion_fields(lesion, has_mm))

    def content(self) -> bytes:
        """Return the file."""
        return self._text.getvalue().encode("utf-8", "backslashreplace")


def is_ours(name: str, content: bytes) -> bool:
    """Return whether medzsad wrote a file with one of the names of :data:`FILES`."""
    if name == INDEX_NAME:
        return is_index(content)
    columns = SCORE_COLUMNS if name == SCORES else LESION_COLUMNS
    return content.split(b"\n", 1)[0] == ",".join(columns).encode()


def scans_in(name: str, content: bytes) -> set[str]:
    """Return the names of the scans that a file of medzsad with one of these names lists."""
    text = content.decode("utf-8", "replace")
    if name == INDEX_NAME:
        return reports_in(text)
    return {row["scan"].removeprefix("'") for row in csv.DictReader(io.StringIO(text, newline=""))}


def _harmless(text: str) -> str:
    """Return a text that no spreadsheet computes: behind a quote, if it begins like a formula (OWASP)."""
    return f"'{text}" if text.lstrip(" ")[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text


def _lesion_fields(lesion: dict[str, Any], has_mm: bool) -> Iterator[Any]:
    """Yield the cells of :data:`LESION_COLUMNS` behind the first two, from a report's candidate."""
    yield from (lesion[name] for name in ("score", "maximum", "mean", "volume_ml", "voxels"))
    for place in ("center_mm", "peak_mm"):
        yield from lesion[place] if has_mm else (None,) * 3
    yield from (*lesion["center_voxel"], *lesion["peak_voxel"])
    for end in range(2):
        yield from (pair[end] for pair in lesion["bounding_box"])
