"""A suite as tables, as rows of a CSV file, as a document and as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medzsad.evaluation.outcome import LEVEL_TITLES
from medzsad.evaluation.plots import save_suite_plots
from medzsad.evaluation.reporting import MASK_NOTES, SEEN, cell, not_taken
from medzsad.evaluation.suite_outcome import Block, Row, SetOutcome, Suite, blocks_of, columns_of, levels_of
from medzsad.evaluation.tables import Table, csv_text, table_files, write_files
from medzsad.results.report import to_json

CSV_HEADER = [
    "suite", "level", "domain", "set", "images", "kind", "method", "zero_shot", "metric", "value",
    "low_95", "high_95", "lower_bound", "upper_bound", "undefined", "source", "protocol",
]  # fmt: skip


def save_suite(suite: Suite, folder: Path) -> list[Path]:
    """Write ``suite.json``, ``suite.csv``, ``suite.md``, ``suite.tex`` and a picture per level.

    See :func:`~medzsad.evaluation.tables.write_files` for what is returned and raised.
    """
    texts = {
        "suite.json": to_json(suite_document(suite)),
        "suite.csv": csv_text(CSV_HEADER, suite_rows(suite)),
    }
    texts |= table_files("suite", suite_tables(suite))
    return write_files(folder, texts, lambda staging: save_suite_plots(suite, staging))


def suite_tables(suite: Suite) -> list[Table]:
    """Return one table per level: set by set, with what is published beside, and the mean of each domain."""
    return [_table(suite, level) for level in levels_of(suite)]


def suite_rows(suite: Suite) -> list[list[Any]]:
    """Return one row per figure for :data:`CSV_HEADER`, as fractions and unrounded, gains too."""
    rows = []
    for level in levels_of(suite):
        for block in blocks_of(suite, level):
            name = block.outcome.result.title if block.outcome else "mean"
            images = block.outcome.result.samples if block.outcome else None
            for row in block.rows:
                for metric, figure in row.figures.items():
                    rows.append(
                        [
                            *(suite.name, level, block.domain, name, images, row.kind, row.method),
                            *("yes" if row.zero_shot else "no", metric, *figure.as_cells()),
                            *(row.source or None, row.protocol or None),
                        ]
                    )
    return rows


def suite_document(suite: Suite) -> dict[str, Any]:
    """Return everything, JSON-serialisable: fractions, unrounded; no folder but those below the data's."""
    return {
        "schema": 1,
        "suite": suite.name,
        "settings": {**suite.settings.as_dict(), "split": suite.split, "limit": suite.limit},
        "sets": [
            {
                "name": one.entry.name,
                "claimed": one.evaluation and one.evaluation.title,
                "domain": one.entry.domain,
                "status": one.status,
                "folder": one.found and one.found.name,
                "classes_missing": _classes_missing(one),
                "samples": one.evaluation and one.evaluation.samples,
                "masks": one.evaluation and one.evaluation.settings.masks,
                "reused": one.reused,
                "error": one.message or None,
            }
            for one in suite.sets
        ],
        "levels": {
            level: [
                {
                    "domain": block.domain,
                    "set": block.outcome.entry.name if block.outcome else None,
                    "mean_of": None if block.outcome else block.sets,
                    "rows": [_row_document(row) for row in block.rows],
                }
                for block in blocks_of(suite, level)
            ]
            for level in levels_of(suite)
        },
        "versions": next((one.result.versions for one in suite.done), {}),
    }


def _table(suite: Suite, level: str) -> Table:
    columns = columns_of(level)
    blocks = blocks_of(suite, level)
    sets = [block for block in blocks if block.outcome]
    number = f"{len(sets)} {'sets' if len(sets) > 1 else 'set'}"
    title = f"{suite.name}: {number} with figures at {LEVEL_TITLES[level]}, %"
    table = Table(title, ["set", *columns.values()])
    sources: dict[tuple[str, str], int] = {}
    for block in blocks:
        table.rows.append([_heading(block), *([""] * len(columns))])
        for row in block.rows:
            table.rows.append([_label(row, block, sources), *(_cell(row, key) for key in columns)])
    table.notes += _notes(suite, level, blocks, sources)
    return table


def _heading(block: Block) -> str:
    if block.outcome is None:
        return f"MEAN, {block.domain}, {block.sets} {'sets' if block.sets > 1 else 'set'}"
    evaluation, entry = block.outcome.result, block.outcome.entry
    things = "volumes" if evaluation.level == "voxel" else "images"
    there = len(evaluation.detectors[0].classes)
    some = f" of {len(entry.classes)}" if there < len(entry.classes) else ""
    classes = f", mean of {there}{some} classes" if there > 1 or some else ""
    return f"{evaluation.title}, {evaluation.samples} {things}{classes}"


def _label(row: Row, block: Block, sources: dict[tuple[str, str], int]) -> str:
    if row.kind == "gain":
        return f"  gain of {row.method} [{_number(row, sources)}]"
    if row.kind != "published":
        return f"  {row.method}{'' if row.zero_shot else SEEN}"
    if block.outcome is None:
        return f"  published: {row.method}, same sets"
    return f"  published: {row.method} [{_number(row, sources)}]"


def _number(row: Row, sources: dict[tuple[str, str], int]) -> int:
    return sources.setdefault((row.source, row.protocol), len(sources) + 1)


def _cell(row: Row, metric: str) -> str:
    figure = row.figures.get(metric)
    if figure is None or (row.kind in ("published", "gain") and figure.value is None):
        return ""
    text = cell(figure, metric)
    return f"+{text}" if row.kind == "gain" else text


def _notes(suite: Suite, level: str, blocks: list[Block], sources: dict[tuple[str, str], int]) -> list[str]:
    notes = []
    missing, failed = suite.named("missing"), suite.named("failed")
    if missing:
        notes.append(f"not found: {', '.join(missing)}")
    notes += [f"failed: {one.entry.name}: {one.message}" for one in suite.sets if one.status == "failed"]
    parts = [one.place.summary for one in suite.done if one.place.is_part]
    if parts:
        notes.append(f"parts of sets, by their folders' names: {', '.join(parts)}")
    others = [one.result for one in suite.done if one.result.doubt]
    notes += [not_taken(one) for one in others]
    if missing or failed or parts or others or suite.limit is not None:
        limit = f"; at most {suite.limit} samples of each" if suite.limit is not None else ""
        notes.append(f"means are of what is here: not to be compared with those of complete sets{limit}")
    if any(not row.zero_shot for block in blocks for row in block.rows):
        notes.append(f"{SEEN} not zero-shot: trained on images of the set, or of one of the sets")
    reasons = {
        f"{block.outcome.entry.name}: {figure.reason}": None
        for block in blocks
        if block.outcome
        for row in block.rows
        for figure in row.figures.values()
        if figure.reason and row.kind in ("model", "reference")
    }
    notes += [f"undefined: {reason}" for reason in reasons]
    if level == "pixel":
        rules: dict[str, list[str]] = {}
        for block in blocks:
            if block.outcome:
                rule = block.outcome.result.settings.masks
                rules.setdefault(rule, []).append(block.outcome.entry.name)
        notes += [f"masks of {', '.join(names)}: {MASK_NOTES[rule]}" for rule, names in rules.items()]
    notes += [
        f"[{number}] {source}" + (f"; {protocol}" if protocol else ": points over the best earlier method")
        for (source, protocol), number in sources.items()
    ]
    if sources:
        notes.append("published: for the complete sets, not measured here")
    return notes


def _classes_missing(outcome: SetOutcome) -> list[str]:
    """Classes that the catalogue lists and the copy has not."""
    known = outcome.entry.classes
    if outcome.found is None or len(known) == 1:
        return []
    return [name for name in known if name not in outcome.found.classes]


def _row_document(row: Row) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": row.kind, "method": row.method, "zero_shot": row.zero_shot}
    if row.source:
        fields |= {"source": row.source, "protocol": row.protocol}
    return {**fields, "figures": {key: figure.as_dict() for key, figure in row.figures.items()}}
