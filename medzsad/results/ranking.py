"""The scans with the highest scores as a table for the terminal. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

NAME_WIDTH = 32  # of a scan's name on the terminal
DISCLAIMER = "Research use only - not for diagnosis."

RankedRow = tuple[str, float, int, float | None, float]
"""Name, score, number of candidates, volume of the largest in mL or None, seconds."""


def ranked_table(rows: Iterable[RankedRow]) -> list[str]:
    """Return rows, the highest score first, as lines of at most 80 columns, under a line of titles."""
    columns = "{:>4} {:<" + str(NAME_WIDTH) + "} {:>6} {:>8} {:>10} {:>8}"
    lines = [columns.format("rank", "scan", "score", "lesions", "largest", "time")]
    for rank, (name, score, lesions, largest_ml, seconds) in enumerate(rows, 1):
        largest = "-" if largest_ml is None else f"{largest_ml:.1f} mL"
        lines.append(
            columns.format(rank, shortened(name), f"{score:.3f}", lesions, largest, f"{seconds:.1f} s")
        )
    return lines


def shortened(name: str) -> str:
    """Return at most :data:`NAME_WIDTH` letters of a name, its beginning and its end."""
    half = NAME_WIDTH // 2 - 1
    return name if len(name) <= NAME_WIDTH else f"{name[:half]}..{name[-half:]}"
