"""An evaluation as tables, in the papers' order and in percent, as a document and as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medzsad.evaluation.outcome import (
    LEVEL_TITLES,
    METRICS,
    NOT_PERCENT,
    DetectorOutcome,
    Evaluation,
    Figure,
    Figures,
)
from medzsad.evaluation.plots import save_plots
from medzsad.evaluation.tables import Table, csv_text, table_files, write_files
from medzsad.results.report import to_json

SEEN = "*"
MASK_NOTES = {
    "published": "as in the published evaluations (not black, bilinear, more than half)",
    "half": "cut at half of white, nearest pixel; published figures have other masks (`masks` published)",
}
SEEN_NOTE = f"{SEEN} not zero-shot: trained on images of this data set, or shown normal ones"


def save_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``metrics.json``, ``metrics.csv``, ``table.md``, ``table.tex`` and the plots.

    See :func:`~medzsad.evaluation.tables.write_files` for what is returned and raised.
    """
    texts = {
        "metrics.json": to_json(document(evaluation)),
        "metrics.csv": csv_text(*plain_rows(evaluation)),
        **table_files("table", tables(evaluation)),
    }
    return write_files(folder, texts, lambda staging: save_plots(evaluation, staging))


def tables(evaluation: Evaluation) -> list[Table]:
    """All tables: per level one that compares detectors, then one per detector with several classes."""
    found = []
    for level in _levels(evaluation):
        found.append(comparison(evaluation, level))
    for detector in evaluation.detectors:
        if len(detector.classes) > 1 and not detector.reference:
            found += [per_class(evaluation, detector, level) for level in _levels(evaluation)]
    return found


def comparison(evaluation: Evaluation, level: str) -> Table:
    """Detectors, references and published figures side by side; means where there are several classes."""
    columns = METRICS[level]
    table = Table(_title(evaluation, level), ["detector", *columns.values()])
    reasons: dict[str, None] = {}
    for detector in evaluation.detectors:
        figures = detector.mean.get(level, {})
        name = detector.name + ("" if detector.zero_shot else SEEN)
        table.rows.append([name, *(cell(figures.get(key), key) for key in columns)])
        intervals = [interval_cell(figures.get(key), key) for key in columns]
        if any(intervals):
            table.rows.append(["  95 % interval", *intervals])
        spreads = [spread_cell(figures.get(key), key) for key in columns]
        if any(spreads):
            table.rows.append(["  over draws", *spreads])
        reasons |= dict.fromkeys(f.reason for f in figures.values() if f.reason)
    for published in evaluation.published:
        values = getattr(published, level, {})
        if values:
            cells = [f"{values[key]:.1f}" if key in values else "" for key in columns]
            table.rows.append([f"published: {published.method}", *cells])
    table.notes += _notes(evaluation, level, reasons)
    return table


def per_class(evaluation: Evaluation, detector: DetectorOutcome, level: str) -> Table:
    """One row per class and the mean, as the papers print them."""
    columns = METRICS[level]
    title = f"{detector.name} on {evaluation.title}, {LEVEL_TITLES[level]}, %"
    table = Table(title, ["class", "normal", "anomalous", *columns.values()])
    reasons: dict[str, None] = {}
    for one in detector.classes:
        figures = one.figures.get(level, {})
        cells = [cell(figures.get(key), key) for key in columns]
        table.rows.append([one.name, str(one.normal), str(one.anomalous), *cells])
        reasons |= dict.fromkeys(f"{one.name}: {f.reason}" for f in figures.values() if f.reason)
    totals = [str(sum(getattr(one, side) for one in detector.classes)) for side in ("normal", "anomalous")]
    mean = detector.mean.get(level, {})
    table.rows.append(["mean", *totals, *(cell(mean.get(key), key) for key in columns)])
    table.notes += [f"undefined: {reason}" for reason in reasons]
    return table


def not_taken(evaluation: Evaluation) -> str:
    """Return the note on samples that cannot be taken for the data set of that name."""
    return f"not taken for {evaluation.dataset}, so nothing published stands beside: {evaluation.doubt}"


def cell(figure: Figure | None, metric: str) -> str:
    """Return a figure as the papers print it: percent with one digit."""
    if figure is None:
        return ""
    return "undefined" if figure.value is None else _number(figure.value, metric)


def interval_cell(figure: Figure | None, metric: str) -> str:
    """Return an interval as ``87.1-94.4``; nothing if there is none."""
    if figure is None or figure.interval is None:
        return ""
    return "-".join(_number(end, metric) for end in figure.interval)


def spread_cell(figure: Figure | None, metric: str) -> str:
    """Return the standard deviation over draws as ``+-1.2``; nothing if there were none."""
    return "" if figure is None or figure.spread is None else f"+-{_number(figure.spread, metric)}"


def plain_rows(evaluation: Evaluation) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of a table of all figures, one per row, as fractions and unrounded."""
    header = ["dataset", "detector", "zero_shot", "class", "level", "metric", "value", "low_95", "high_95"]
    header += ["lower_bound", "upper_bound", "undefined", "spread"]
    rows: list[list[Any]] = []
    for detector in evaluation.detectors:
        blocks = [(one.name, one.figures) for one in detector.classes]
        if len(blocks) > 1:
            blocks.append(("mean", detector.mean))
        for name, figures in blocks:
            for level, metric, figure in _each(figures):
                rows.append(
                    [
                        evaluation.title,
                        detector.name,
                        "yes" if detector.zero_shot else "no",
                        name,
                        level,
                        metric,
                        *figure.as_cells(),
                        figure.spread,
                    ]
                )
    return header, rows


def document(evaluation: Evaluation) -> dict[str, Any]:
    """Everything, JSON-serialisable; fractions, unrounded."""
    return {
        "schema": 1,
        "dataset": evaluation.title,
        **({"given_as": evaluation.dataset} if evaluation.doubt else {}),
        "level": evaluation.level,
        "layout": evaluation.layout,
        "samples": evaluation.samples,
        "settings": evaluation.settings.as_dict(),
        "notes": list(evaluation.notes),
        "versions": evaluation.versions,
        "detectors": [
            {
                "name": detector.name,
                "reference": detector.reference,
                "zero_shot": detector.zero_shot,
                "framing": detector.framing,
                "threshold": detector.threshold,
                "mode": detector.mode,
                "seconds": detector.seconds,
                "reused_predictions": detector.reused,
                "settings": detector.settings,
                "mean": _figures(detector.mean),
                "classes": [
                    {
                        "name": one.name,
                        **({} if one.class_name is None else {"class_name": one.class_name}),
                        "normal": one.normal,
                        "anomalous": one.anomalous,
                        "figures": _figures(one.figures),
                        "cases": one.cases,
                    }
                    for one in detector.classes
                ],
            }
            for detector in evaluation.detectors
        ],
        "published": [
            {
                "method": p.method,
                "source": p.source,
                "protocol": p.protocol,
                "image": p.image,
                "pixel": p.pixel,
            }
            for p in evaluation.published
        ],
    }


def _levels(evaluation: Evaluation) -> list[str]:
    """Return the levels to print.

    Those with any figure (a set without normal images has none at image level).
    """
    means = [detector.mean for detector in evaluation.detectors]
    return [level for level in METRICS if any(_is_defined(mean.get(level, {})) for mean in means)] or [
        level for level in METRICS if any(level in mean for mean in means)
    ]


def _is_defined(figures: dict[str, Figure]) -> bool:
    return any(figure.value is not None for figure in figures.values())


def _title(evaluation: Evaluation, level: str) -> str:
    things = "volume" if evaluation.level == "voxel" else "image"
    things += "" if evaluation.samples == 1 else "s"
    classes = evaluation.detectors[0].classes
    normal, anomalous = sum(c.normal for c in classes), sum(c.anomalous for c in classes)
    several = f", mean of {len(classes)} classes" if len(classes) > 1 else ""
    return (
        f"{evaluation.title}: {evaluation.samples} {things} ({normal} normal, {anomalous} anomalous)"
        f"{several}, {LEVEL_TITLES[level]}, %"
    )


def _notes(evaluation: Evaluation, level: str, reasons: Iterable[str]) -> list[str]:
    notes = [f"undefined: {reason}" for reason in reasons]
    if level == _levels(evaluation)[0]:
        for other in METRICS:
            figures = evaluation.detectors[0].mean.get(other, {})
            if figures and not _is_defined(figures) and other != level:
                reason = next(iter(figures.values())).reason
                notes.append(f"{LEVEL_TITLES[other]}: undefined, {reason}")
    if evaluation.doubt:
        notes.append(not_taken(evaluation))
    if any(not detector.zero_shot for detector in evaluation.detectors):
        notes.append(SEEN_NOTE)
    dice = {f"{d.name} {d.threshold:g}" for d in evaluation.detectors if not d.reference}
    if level in ("pixel", "case", "voxel", "lesion") and dice:
        what = "Dice" if level == "pixel" else "Dice and lesions"
        notes.append(f"{what} at the threshold: {', '.join(sorted(dice))}")
    if level == "pixel":
        notes.append(f"masks: {MASK_NOTES[evaluation.settings.masks]}")
    bounds = [
        figure.bounds[1] - figure.bounds[0]
        for detector in evaluation.detectors
        for figure in detector.mean.get(level, {}).values()
        if figure.bounds is not None
    ]
    if bounds:
        notes.append(f"from histograms: the exact figures lie within {100 * max(bounds):.1g} points of these")
    notes += [
        f"published, for the complete set: {p.method}: {p.source}; {p.protocol}"
        for p in evaluation.published
        if getattr(p, level, {})
    ]
    return notes


def _number(value: float, metric: str) -> str:
    return f"{value:.2f}" if metric in NOT_PERCENT else f"{100 * value:.1f}"


def _each(figures: Figures) -> Iterable[tuple[str, str, Figure]]:
    for level, metrics in figures.items():
        for metric, figure in metrics.items():
            yield level, metric, figure


def _figures(figures: Figures) -> dict[str, Any]:
    return {level: {key: f.as_dict() for key, f in metrics.items()} for level, metrics in figures.items()}
