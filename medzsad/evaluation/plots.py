"""Curves and histograms of an evaluation, as PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.evaluation.evaluate import Evaluation
from medzsad.evaluation.outcome import LEVEL_TITLES, METRICS, ClassOutcome

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
    written = []
    for name, figure in _figures(evaluation):
        for suffix in ("png", "svg"):
            path = folder / f"{name}.{suffix}"
            # Without the date and random ids the same figures give the same file.
            metadata: dict[str, Any] = {"Date": None} if suffix == "svg" else {}
            figure.savefig(path, dpi=130, metadata=metadata)
            written.append(path)
    return written


def _figures(evaluation: Evaluation) -> Iterator[tuple[str, Figure]]:
    import matplotlib

    kinds = {
        (level, kind): None
        for detector in evaluation.detectors
        for one in detector.classes
        for level, curves in one.curves.items()
        for kind in curves
    }
    with matplotlib.rc_context({"svg.hashsalt": "medzsad", "font.size": 9}):
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
