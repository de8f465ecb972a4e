"""What ``medzsad models time`` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from medzsad.backends.records import MAP_BOUND, SCORE_BOUND, Record, Timing

USES = {"slices": "slices of volumes", "images": "images"}


def time_facts(record: Record) -> dict[str, Any]:
    """The record, JSON-serialisable, with what ``--backend auto`` takes from now on."""
    facts = asdict(record)
    for timing, stored in zip(record.timings, facts["timings"], strict=True):
        stored["within_bounds"] = timing.within
    best = record.fastest()
    return {**facts, "choice": None if best is None else [best.backend, best.precision]}


def time_lines(record: Record) -> list[str]:
    """The record as a table for the terminal."""
    best = record.fastest()
    lines = [f"{record.model} on {record.cpu}, {record.threads} threads, {record.batch} at once"]
    for use, side in record.sizes.items():
        first = record.timings[0].rates[use]
        lines += ["", f"{USES[use]}, {side} px"]
        lines.append(f"{'backend':<16}{'images/s':>10}{'ratio':>8}")
        lines += [
            f"{_label(one):<16}{one.rates[use]:>10.3g}{one.rates[use] / first:>8.2f}"
            for one in record.timings
        ]
    lines += ["", "largest difference from torch fp32"]
    lines.append(f"{'backend':<16}{'maps':>10}{'scores':>10}  bounds ({MAP_BOUND:g}, {SCORE_BOUND:g})")
    lines += [
        f"{_label(one):<16}{one.map_difference:>10.1e}{one.score_difference:>10.1e}  "
        f"{'kept' if one.within else 'missed'}"
        for one in record.timings
    ]
    lines += ["", f"--backend auto takes {'torch' if best is None else _label(best)}"]
    return lines


def _label(timing: Timing) -> str:
    return f"{timing.backend} {timing.precision}"
