"""The slice scores of a plane as a curve (SVG) that a script can make clickable."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medzsad.results.prediction import SliceScore
    from medzsad.scans.slices import Plane

WIDTH, HEIGHT = 760, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 30


def curve_svg(plane: Plane, scores: list[SliceScore], slices: int, threshold: float) -> str:
    """One plane's curve.

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

    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = y_of(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        if value in (0.0, 0.5, 1.0):
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    y = y_of(min(max(threshold, 0.0), 1.0))
    parts.append(
        f'<line class="threshold" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}">'
        f"<title>threshold of the map: {threshold:.3g}</title></line>"
        f'<text class="threshold" x="{WIDTH - RIGHT}" y="{y + 12}" text-anchor="end">map threshold</text>'
    )
    for index in _ticks(slices):
        parts.append(f'<text x="{x_of(index)}" y="{HEIGHT - 10}" text-anchor="middle">{index}</text>')
    for run in _runs(scores):
        points = " ".join(f"{x_of(score.index)},{y_of(score.score)}" for score in run)
        parts.append(f'<polyline points="{points}"/>')
    radius = 2.5 if slices <= 200 else 1.6
    for score in scores:
        at = f'cx="{x_of(score.index)}" cy="{y_of(score.score)}"'
        parts.append(
            f'<circle {at} r="{radius}" data-index="{score.index}">'
            f"<title>slice {score.index}: score {score.score:.3f}</title></circle>"
        )
    parts.append(f'<line class="cursor" x1="-9" x2="-9" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    label = html.escape(f"{plane} slices: score by slice number ({'ijk'[axis]})")
    return (
        f'<figure class="curve"><figcaption>{label}<output></output></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="slider" tabindex="0" '
        f'aria-label="{label}" '
        f'aria-valuemin="0" aria-valuemax="{slices - 1}" aria-valuenow="0" data-axis="{axis}" '
        f'data-left="{LEFT}" data-step="{step:.6f}">{"".join(parts)}</svg></figure>'
    )


def _runs(scores: list[SliceScore]) -> list[list[SliceScore]]:
    """The scores, cut where slices are missing."""
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
