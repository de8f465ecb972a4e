"""The picture of a suite: set by set, methods side by side, what is published as lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.datasets.published import published_methods
from medzsad.evaluation.outcome import LEVEL_TITLES, METRICS
from medzsad.evaluation.plots import COLOURS
from medzsad.evaluation.suite import Suite
from medzsad.evaluation.suite_means import Block, Row, blocks_of, levels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    import matplotlib

    written = []
    with matplotlib.rc_context({"svg.hashsalt": "medzsad", "font.size": 9}):
        for level in levels_of(suite):
            figure = _draw(suite, level)
            for suffix in ("png", "svg"):
                path = folder / f"suite_{level}.{suffix}"
                metadata: dict[str, Any] = {"Date": None} if suffix == "svg" else {}
                figure.savefig(path, dpi=130, metadata=metadata)
                written.append(path)
    return written


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
