"""The sections of a report: candidates, slice scores as curves (SVG), the model, settings and the scan."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medzsad.results.lesions import Lesion
    from medzsad.results.prediction import ScanPrediction, SliceScore
    from medzsad.scans.slices import Plane

MAX_ROWS = 200
DIRECTIONS = ("RL", "AP", "SI")  # where a positive and a negative coordinate lie: the page's one convention
WIDTH, HEIGHT = 760, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 30
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
CARD_SECTION = "In short"  # of a model card: plain sentences for those who read a result
INTENDED_USE = "Research: to look at scans and to compare methods. Not for diagnosis, screening or treatment."
UNKNOWN = "not recorded"


def badges(prediction: ScanPrediction, document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what stands at the top: values and their labels."""
    count = len(prediction.lesions)
    return [
        (f"{prediction.score:.3f}", "image score" if prediction.scan.is_2d else "volume score"),
        (f"{prediction.threshold:.3g}", "threshold"),
        (str(count), f"lesion candidate{'' if count == 1 else 's'}"),
        (str(document["model"]), "model"),
        (str(prediction.scan.modality).upper(), "modality"),
    ]


def candidate_table(prediction: ScanPrediction, limit: int = MAX_ROWS) -> dict[str, Any]:
    """Return the columns of the lesion candidates, at most ``limit`` rows of them, and how many
    more there are and are hidden."""
    has_mm = prediction.scan.has_geometry
    axes = "x, y" if prediction.scan.shape[2] == 1 else "x, y, slice"
    columns = ["#", "Score", "Volume (mL)" if has_mm else "Pixels", "Mean", "Max"]
    columns += ["Highest at (mm)", "Size (mm)"] if has_mm else [f"Highest at ({axes})", "Size (pixels)"]
    rows = [
        {"voxel": lesion.peak_voxel, "cells": (rank, *_candidate_cells(lesion, prediction))}
        for rank, lesion in enumerate(prediction.lesions[:limit], start=1)
    ]
    rest, hidden = len(prediction.lesions) - len(rows), len(prediction.hidden_lesions)
    return {"columns": columns, "rows": rows, "rest": rest, "hidden": hidden}


def _candidate_cells(lesion: Lesion, prediction: ScanPrediction) -> list[str]:
    extent = [last - first + 1 for first, last in lesion.bounding_box]
    score, mean, peak = (f"{value:.2f}" for value in (lesion.score, lesion.mean, lesion.maximum))
    if not prediction.scan.has_geometry:
        axes = 2 if prediction.scan.shape[2] == 1 else 3  # a stack whose sizes are not known has slices, too
        place = ", ".join(map(str, lesion.peak_voxel[:axes]))
        return [score, str(lesion.voxels), mean, peak, place, " x ".join(map(str, extent[:axes]))]
    place = " ".join(  # a narrow cell may break between the numbers alone
        f"{ends[value < 0]}\N{NO-BREAK SPACE}{abs(value):.1f}"
        for ends, value in zip(DIRECTIONS, lesion.peak_mm, strict=True)
    )
    size = " x ".join(f"{n * mm:.0f}" for n, mm in zip(extent, prediction.scan.spacing, strict=True))
    return [score, f"{lesion.volume_ml:.2f}", mean, peak, place, size]


def curves(prediction: ScanPrediction) -> list[dict[str, Any]]:
    """Return the :func:`score_curve` of each plane that has scores."""
    found = []
    for plane in prediction.planes:
        scores = [score for score in prediction.slice_scores if score.plane == plane]
        if scores:
            slices = prediction.scan.shape[scores[0].axis]
            found.append(score_curve(plane, scores, slices, prediction.threshold))
    return found


def settings_of(document: dict[str, Any]) -> dict[str, str]:
    """Return how the result was computed, as label and value."""
    facts = {"threshold": document["threshold"]["rule"], "intensity": document["intensity"]["description"]}
    return facts | _flat(document["settings"])


def scan_facts(document: dict[str, Any]) -> dict[str, str]:
    """Return the facts of the scan, as label and value."""
    scan = document["scan"]
    facts = {"voxels": " x ".join(map(str, scan["shape"]))}
    if scan["spacing_mm"] is not None:
        facts["spacing (mm)"] = " x ".join(f"{value:.4g}" for value in scan["spacing_mm"])
        facts["orientation"] = scan["orientation"]
    facts["modality"] = f"{scan['modality']} ({scan['modality_source']})"
    # The series' UID leads to the patient; it is in the JSON, not on a page that is passed on.
    return facts | _flat({name: value for name, value in scan["details"].items() if name != "series_uid"})


def seconds(timings: dict[str, float]) -> dict[str, str]:
    """Return how long each stage took, as label and value."""
    return {name.removesuffix("_s").replace("_", " "): f"{value:.2f} s" for name, value in timings.items()}


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level; of files only names are told, for people name folders after patients."""
    facts: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            facts |= _flat(item, f"{prefix}{key}.")
        elif isinstance(item, str):
            facts[prefix + key] = _without_folder(item)
        else:
            text = json.dumps(item)
            facts[prefix + key] = text if len(text) <= 80 else text[:77] + "..."
    return facts


def _without_folder(text: str) -> str:
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return PureWindowsPath(text).name
    return PurePath(text).name if text.startswith(("/", "~", "./", "../")) else text


def score_curve(plane: Plane, scores: list[SliceScore], slices: int, threshold: float) -> dict[str, Any]:
    """Return what the template of one plane's curve draws, in the units of its view box.

    The script of the report finds each slice at ``x = data-left + index * data-step`` of the view box.

    Args:
        plane: the plane, for the label.
        scores: its slices, by native index; slices that were not scored interrupt the line.
        slices: how many slices the scan has along that axis.
        threshold: of the map, in [0, 1]; drawn as a line, for the map's values and the scores have one scale.
    """
    axis = scores[0].axis
    step = (WIDTH - LEFT - RIGHT) / max(1, slices - 1)

    def x_of(index: float) -> float:
        return round(LEFT + index * step, 2)

    def y_of(score: float) -> float:
        return round(TOP + (1 - score) * (HEIGHT - TOP - BOTTOM), 2)

    shown = (0.0, 0.5, 1.0)
    return {
        "plane": plane,
        "axis": axis,
        "slices": slices,
        "step": step,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "grid": [(y_of(value), f"{value:g}" if value in shown else None) for value in GRID],
        "threshold": threshold,
        "threshold_y": y_of(min(max(threshold, 0.0), 1.0)),
        "ticks": [(x_of(index), index) for index in _ticks(slices)],
        "lines": [[f"{x_of(one.index)},{y_of(one.score)}" for one in run] for run in _runs(scores)],
        "points": [(x_of(one.index), y_of(one.score), one.index, one.score) for one in scores],
        "radius": 2.5 if slices <= 200 else 1.6,
    }


def _runs(scores: list[SliceScore]) -> list[list[SliceScore]]:
    """Return the scores, cut where slices are missing."""
    runs: list[list[SliceScore]] = []
    for score in sorted(scores, key=lambda score: score.index):
        if runs and score.index == runs[-1][-1].index + 1:
            runs[-1].append(score)
        else:
            runs.append([score])
    return runs


def _ticks(slices: int) -> list[int]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**6) if slices / step <= 12)
    return list(range(0, slices, step))


@dataclass(frozen=True)
class CardSummary:
    """A model in a few lines.

    Attributes:
        facts: label and value, in order.
        paragraphs: what the model card says in short; plain text.
    """

    facts: dict[str, str]
    paragraphs: tuple[str, ...] = ()


def summarise_card(prediction: ScanPrediction) -> CardSummary:
    """Return what is known of the model of a prediction."""
    from medzsad.zoo.catalogue import catalogue, weights_folder

    name = str(prediction.settings.get("model") or "unknown")
    entry = catalogue().models.get(name)
    facts = {"Model": name, "Method": str(prediction.settings.get("method") or UNKNOWN)}
    paragraphs: tuple[str, ...] = ()
    if entry is None:
        facts["Origin"] = "a checkpoint that is not in the catalogue"
        facts["Licence"] = facts["Trained on"] = UNKNOWN
    else:
        learned = entry.adapter is not None or entry.checkpoint is not None
        facts["What it is"] = entry.title or UNKNOWN
        facts["Licence"] = entry.licence
        facts["Trained on"] = ", ".join(entry.seen) or (UNKNOWN if learned else "nothing (training-free)")
        facts |= {label: text for label, text in (("Paper", entry.paper), ("Note", entry.note)) if text}
        if entry.card is not None:
            paragraphs = card_in_short((weights_folder() / entry.card).read_text(encoding="utf-8"))
    facts["Threshold used"] = f"{prediction.threshold:.4g}{prediction.rule_in_brackets}"
    facts["Intended use"] = INTENDED_USE
    return CardSummary(facts, paragraphs)


def card_in_short(markdown: str) -> tuple[str, ...]:
    """Return the paragraphs of a model card's :data:`CARD_SECTION`, without markup; none without one."""
    section = re.search(rf"^## {CARD_SECTION}\n(.*?)(?=^## |\Z)", markdown, flags=re.DOTALL | re.MULTILINE)
    if section is None:
        return ()
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", section[1])
    text = re.sub(r"\*\*|`|(?<!\w)\*|\*(?!\w)", "", text)
    return tuple(" ".join(part.split()) for part in text.split("\n\n") if part.strip())
