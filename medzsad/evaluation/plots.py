"""Pictures of an evaluation and of a suite, as PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.datasets.published import published_methods
from medzsad.evaluation.outcome import LEVEL_TITLES, METRICS, ClassOutcome, Evaluation
from medzsad.evaluation.suite_outcome import Block, Row, Suite, blocks_of, levels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
AXES = {
    "roc": ("false positive rate", "true positive rate"),
    "pr": ("recall", "precision"),
    "pro": ("false positive rate", "mean overlap of regions"),
    "froc": ("false positives per scan", "lesion sensitivity"),
}
# What the area under each kind of curve is called, for the legend.
AREAS = {"roc": "auroc", "pr": "ap", "pro": "aupro", "froc": "froc_mean"}
MOST_CLASSES = 16


def save_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Draws every curve that the evaluation has, and the scores of normal and anomalous images.

    Returns:
        The files written: ``LEVEL_KIND.png`` and ``.svg``, ``scores.png`` and ``.svg``.
    """
    return _save(_figures(evaluation), folder)


def _save(figures: Iterable[tuple[str, Figure]], folder: Path) -> list[Path]:
    """Write figures as PNG and SVG; without date and random ids the same figures give the same files."""
    import matplotlib

    written = []
    with matplotlib.rc_context({"svg.hashsalt": "medzsad", "font.size": 9}):
        for name, figure in figures:
            for suffix in ("png", "svg"):
                path = folder / f"{name}.{suffix}"
                metadata: dict[str, Any] = {"Date": None} if suffix == "svg" else {}
                figure.savefig(path, dpi=130, metadata=metadata)
                written.append(path)
    return written


def _figures(evaluation: Evaluation) -> Iterator[tuple[str, Figure]]:
    kinds = {
        (level, kind): None
        for detector in evaluation.detectors
        for one in detector.classes
        for level, curves in one.curves.items()
        for kind in curves
    }
    for level, kind in kinds:
        yield f"{level}_{kind}", _curves(evaluation, level, kind)
    labels = {label for d in evaluation.detectors for one in d.classes for _, label in one.scores}
    if len(labels) > 1:
        yield "scores", _scores(evaluation)


def _curves(evaluation: Evaluation, level: str, kind: str) -> Figure:
    names = [one.name for one in evaluation.detectors[0].classes][:MOST_CLASSES]
    figure, axes = _panels(len(names))
    for panel, name in zip(axes, names, strict=True):
        for number, detector in enumerate(evaluation.detectors):
            one = next((c for c in detector.classes if c.name == name), None)
            if one is None or (points := one.curves.get(level, {}).get(kind)) is None:
                continue
            style = "--" if detector.reference else "-"
            colour = COLOURS[number % len(COLOURS)]
            draw = panel.step if kind == "froc" else panel.plot
            options = {"where": "post"} if kind == "froc" else {}
            draw(
                *points,
                style,
                color=colour,
                linewidth=1.4,
                label=_label(detector.name, one, level, kind),
                **options,
            )
        if kind == "roc":
            panel.plot([0, 1], [0, 1], ":", color="#bbbbbb", linewidth=1)
        panel.set_xlabel(AXES[kind][0])
        panel.set_ylabel(AXES[kind][1])
        panel.set_ylim(0, 1.01)
        panel.set_xlim(left=0)
        if kind == "pro":
            panel.set_xlim(0, evaluation.settings.fpr_limit)
        elif kind != "froc":
            panel.set_xlim(0, 1)
        panel.grid(color="#e5e5e5", linewidth=0.6)
        panel.set_axisbelow(True)
        if len(names) > 1:
            panel.set_title(name, fontsize=9)
        panel.legend(frameon=False, fontsize=7)
    figure.suptitle(f"{evaluation.title}, {LEVEL_TITLES[level]}", fontsize=10)
    return figure


def _label(name: str, one: ClassOutcome, level: str, kind: str) -> str:
    """Return the detector's name with the area under its curve, in percent, as the tables have it."""
    area = one.figures.get(level, {}).get(AREAS[kind])
    if area is None or area.value is None:
        return name
    return f"{name}, {METRICS[level][AREAS[kind]]} {100 * area.value:.1f}"


def _scores(evaluation: Evaluation) -> Figure:
    detectors = [d for d in evaluation.detectors if any(one.scores for one in d.classes)]
    figure, axes = _panels(len(detectors))
    for panel, detector in zip(axes, detectors, strict=True):
        pairs = [pair for one in detector.classes for pair in one.scores]
        low, high = min(score for score, _ in pairs), max(score for score, _ in pairs)
        span = (low, high) if high > low else (low - 0.5, low + 0.5)
        for label, name, colour in ((0, "normal", COLOURS[0]), (1, "anomalous", COLOURS[1])):
            values = [score for score, truth in pairs if truth == label]
            if values:
                text = f"{name} ({len(values)})"
                panel.hist(values, bins=30, range=span, color=colour, alpha=0.6, label=text)
        panel.set_title(detector.name, fontsize=9)
        panel.set_xlabel("image score" if evaluation.level != "voxel" else "volume score")
        panel.set_ylabel("images" if evaluation.level != "voxel" else "volumes")
        panel.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{evaluation.title}, scores", fontsize=10)
    return figure


def _panels(count: int) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(4, math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


# Greys for what no detector may lose to; lines in colours that no bar has.
REFERENCE_COLOURS = ("#666666", "#999999", "#c4c4c4")
LINE_COLOURS = ("#000000", "#B2182B", "#4B0082", "#006837", "#C51B7D", "#8C510A")
LINE_STYLES = ("-", "-", (0, (5, 1.5)), (0, (5, 1.5)), (0, (2, 1)), (0, (2, 1)))
PUBLISHED = "published: "
WIDEST = 18.0  # inches
GROUP = 0.84  # of the room between two sets, what its bars take
MOST_NAME = 34  # letters of a method's name


def save_suite_plots(suite: Suite, folder: Path) -> list[Path]:
    """Draw ``suite_LEVEL.png`` and ``.svg`` for each level.

    Two panels each: AUROC, which every publication reports, and mAD (for volumes, AUROC and AP). Bars of a
    set with one class have their 95 % intervals.

    Returns:
        The files written.
    """
    return _save(((f"suite_{level}", _draw(suite, level)) for level in levels_of(suite)), folder)


def _draw(suite: Suite, level: str) -> Figure:
    from matplotlib.figure import Figure

    blocks = blocks_of(suite, level)
    metrics = [key for key in METRICS[level] if key in ("auroc", "mad")]
    metrics = metrics if len(metrics) > 1 else list(METRICS[level])[:2]
    bars = [row for row in blocks[0].rows if row.kind in ("model", "reference")]
    lines = list(
        dict.fromkeys(row.method for block in blocks for row in block.rows if row.kind == "published")
    )
    width = min(WIDEST, max(8.0, 1.2 + len(blocks) * max(0.9, 0.16 * (len(bars) + 1))))
    figure = Figure(figsize=(width, 7.6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for panel, metric in zip(panels, metrics, strict=True):
        _panel(panel, blocks, bars, lines, level, metric)
    panels[0].set_xlim(-0.6, len(blocks) - 0.4)
    panels[-1].set_xticks(range(len(blocks)), [_tick(block) for block in blocks])
    found = list(zip(*panels[0].get_legend_handles_labels(), strict=True))
    found.sort(key=lambda pair: pair[1].startswith(PUBLISHED))  # stable: bars first
    handles, labels = zip(*found, strict=True)
    columns = max(2, min(len(labels), int(width / 2.6)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    title = f"{suite.name}, {LEVEL_TITLES[level]}, %"
    limit = f"; at most {suite.limit} samples of each set" if suite.limit is not None else ""
    figure.suptitle(f"{title}{limit}\npublished figures, as lines, are of the complete sets", fontsize=10)
    return figure


def _panel(
    panel: Any, blocks: Sequence[Block], bars: Sequence[Row], lines: Sequence[str], level: str, metric: str
) -> None:
    share = GROUP / len(bars)
    models = [row.method for row in bars if row.kind == "model"]
    for number, bar in enumerate(bars):
        if bar.kind == "model":
            colour = COLOURS[models.index(bar.method) % 6]
        else:
            colour = REFERENCE_COLOURS[(number - len(models)) % len(REFERENCE_COLOURS)]
        places, heights, errors = [], [], []
        for x, block in enumerate(blocks):
            row = next((r for r in block.rows if (r.kind, r.method) == (bar.kind, bar.method)), None)
            figure = row.figures.get(metric) if row else None
            if figure is None or figure.value is None:
                continue
            places.append(x - GROUP / 2 + (number + 0.5) * share)
            heights.append(100 * figure.value)
            low, high = figure.interval or (figure.value, figure.value)
            errors.append((max(0.0, figure.value - low) * 100, max(0.0, high - figure.value) * 100))
        panel.bar(places, heights, share, color=colour, label=_short(bar.method), zorder=2)
        shown = [i for i, error in enumerate(errors) if any(error)]
        if shown:
            panel.errorbar(
                [places[i] for i in shown],
                [heights[i] for i in shown],
                [[errors[i][side] for i in shown] for side in (0, 1)],
                fmt="none",
                ecolor="#333333",
                elinewidth=0.7,
                zorder=3,
            )
    known = published_methods()
    for method in lines:
        number = known.index(method)  # so that a method looks alike in every picture
        colour, style = LINE_COLOURS[number % len(LINE_COLOURS)], LINE_STYLES[number % len(LINE_STYLES)]
        label = f"{PUBLISHED}{_short(method)}"
        for x, block in enumerate(blocks):
            rows = [row for row in block.rows if (row.kind, row.method) == ("published", method)]
            for row in rows:
                if (figure := row.figures.get(metric)) is not None and figure.value is not None:
                    panel.hlines(
                        100 * figure.value,
                        x - GROUP / 2,
                        x + GROUP / 2,
                        colors=colour,
                        linestyles=style,
                        linewidth=1.5,
                        zorder=4,
                    )
        panel.plot([], [], linestyle=style, color=colour, linewidth=1.5, label=label)  # for the legend
    for x, block in enumerate(blocks):
        if block.outcome is None:
            panel.axvspan(x - 0.5, x + 0.5, color="#eef3f8", zorder=0)
    panel.set_ylim(0, 100)
    panel.set_ylabel(METRICS[level][metric])
    panel.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    panel.set_axisbelow(True)
    if metric == "auroc":
        panel.axhline(50, color="#888888", linewidth=0.8, linestyle=(0, (1, 3)), zorder=1, label="chance")


def _tick(block: Block) -> str:
    if block.outcome is None:
        return f"mean\n{block.domain}\n({block.sets} {'sets' if block.sets > 1 else 'set'})"
    part = "\n(a part)" if block.outcome.place.is_part else ""
    return f"{block.outcome.result.title}{part}"


def _short(name: str) -> str:
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
