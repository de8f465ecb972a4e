"""The slice scores of a plane, laid out as a curve (SVG) that a script can make clickable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medzsad.results.prediction import SliceScore
    from medzsad.scans.slices import Plane

WIDTH, HEIGHT = 760, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 30
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


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
