"""The course of a training as a picture: losses, and what validation found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medzsad.training.run_folder import write_bytes

# Okabe and Ito's palette: told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LOSSES = {
    "loss": "weighted sum",
    "image_loss": "image",
    "focal": "focal",
    "dice_abnormal": "Dice, abnormal",
    "dice_normal": "Dice, normal",
}
SHOWN = {
    "image_auroc": "image AUROC",
    "image_mad": "image mAD",
    "pixel_auroc": "pixel AUROC",
    "pixel_mad": "pixel mAD",
}
SMOOTHED = 50  # the mean over this part of the run is drawn thick


def draw_curves(lines: Sequence[dict[str, Any]], path: Path, *, title: str = "") -> None:
    """Draws a run's log.

    Args:
        lines: of the log, see :class:`~medzsad.training.run_folder.RunFolder`.
        path: the PNG file.
        title: above the picture.

    Raises:
        OutputNotWritable: if the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    steps = [line for line in lines if "loss" in line]
    validations = [line for line in lines if "validation" in line]
    with matplotlib.rc_context({"font.size": 9}):
        panels = 2 if validations else 1
        figure = Figure(figsize=(8, 3.2 * panels), layout="constrained")
        axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
        _draw_losses(axes[0], steps)
        if validations:
            _draw_validations(axes[1], validations)
            axes[1].set_xlim(axes[0].get_xlim())
        axes[-1].set_xlabel("step")
        figure.suptitle(title)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=130)
    write_bytes(path, stream.getvalue())


def _draw_losses(panel: Any, steps: Sequence[dict[str, Any]]) -> None:
    numbers = np.array([line["step"] for line in steps])
    width = max(1, len(steps) // SMOOTHED)
    for colour, (name, title) in zip(COLOURS, LOSSES.items(), strict=False):
        values = np.array([line[name] for line in steps], dtype=float)
        if not len(values) or not values.any():
            continue
        panel.plot(
            numbers,
            values,
            color=colour,
            alpha=0.25 if width > 1 else 0.9,
            linewidth=1,
            label=None if width > 1 else title,
        )
        if width > 1:
            mean = np.convolve(values, np.ones(width) / width, mode="valid")
            panel.plot(numbers[width - 1 :], mean, color=colour, linewidth=1.6, label=title)
    if len(steps) and min(line["loss"] for line in steps) > 0:
        panel.set_yscale("log")
    panel.set_ylabel("training loss (log)" if panel.get_yscale() == "log" else "training loss")
    panel.grid(alpha=0.25)
    panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _draw_validations(panel: Any, validations: Sequence[dict[str, Any]]) -> None:
    drawn = 0
    for marker, dataset in zip("osD^vP*" * 3, validations[0]["validation"], strict=False):
        for number, (name, title) in enumerate(SHOWN.items()):
            points = [(v["step"], v["validation"].get(dataset, {}).get(name)) for v in validations]
            points = [(x, 100 * y) for x, y in points if y is not None]
            if points:
                colour = COLOURS[number % len(COLOURS)]
                panel.plot(
                    *zip(*points, strict=True),
                    marker=marker,
                    markersize=4,
                    color=colour,
                    label=f"{dataset}: {title}",
                )
                drawn += 1
    best = max(validations, key=lambda line: line["chosen"])
    panel.axvline(best["step"], color="#999999", linestyle=":", label="best")
    panel.set_ylabel("validation (%)")
    panel.grid(alpha=0.25)
    columns = 1 if drawn <= 12 else 2
    panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, ncols=columns)
