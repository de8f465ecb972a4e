"""Learned head weights, as a heat map and as a table: which attention heads training raised and lowered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medzsad.errors import ModelNotReady

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from medzsad.detectors.checkpoint import Checkpoint
    from medzsad.detectors.headclip.model import HeadCLIP
    from medzsad.detectors.headclip.prompts import HeadWeights

PATHS = {"patch": "V-V path (patches)", "image": "ordinary path (image)"}
COLOURS = "RdBu_r"  # red raised, blue lowered, white 1; told apart by colour-blind readers
CELL = (0.37, 0.23)  # width and height of a cell in inches
DPI = 130
SMALLEST_RANGE = 0.01  # a colour scale narrower than this would show rounding


def read_head_weights(source: HeadCLIP | Checkpoint) -> dict[str, dict[int, np.ndarray]]:
    """Return the factors that attention heads are multiplied by, whatever the parametrisation.

    Args:
        source: a HeadCLIP (or AnomalyCLIP, all of whose weights are 1), or its checkpoint.

    Returns:
        Per path that has any (``"patch"``, ``"image"``): layer to float32 (heads,).

    Raises:
        ModelNotReady: if the checkpoint is another method's, or incomplete.
    """
    from medzsad.detectors.checkpoint import Checkpoint

    weights = _from_checkpoint(source) if isinstance(source, Checkpoint) else source.head_weights
    found = {
        path: {layer: scale.detach().float().cpu().numpy() for layer, scale in weights.scales(path).items()}
        for path in PATHS
    }
    return {path: layers for path, layers in found.items() if layers}


def draw_head_weights(source: HeadCLIP | Checkpoint) -> np.ndarray:
    """Return a heat map of layers (down) by heads (across) for each path, with the numbers in it.

    Args:
        source: see :func:`read_head_weights`.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ModelNotReady: as :func:`read_head_weights`.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    weights = read_head_weights(source)
    rows = max(len(layers) for layers in weights.values())
    heads = len(next(iter(next(iter(weights.values())).values())))
    reach = max(np.abs(scale - 1).max() for layers in weights.values() for scale in layers.values())
    reach = max(float(reach), SMALLEST_RANGE)
    width = len(weights) * (heads * CELL[0] + 0.75) + 0.9
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure((max(width, 4.2), max(rows * CELL[1], 0.9) + 1.25), dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        figure.suptitle("Learned attention head weights (1 = as pretrained)", fontsize=11)
        panels = figure.subplots(1, len(weights), squeeze=False)[0]
        for panel, (path, layers) in zip(panels, weights.items(), strict=True):
            drawn = _panel(panel, PATHS[path], layers, reach)
        bar = figure.colorbar(drawn, ax=list(panels), fraction=0.05, pad=0.02, aspect=30)
        bar.set_label("factor of the head's output")
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def head_weights_table(source: HeadCLIP | Checkpoint, *, named: int = 2) -> str:
    """Return the same in text: per path and layer the range, and the heads that were changed most.

    Args:
        source: see :func:`read_head_weights`.
        named: how many raised and lowered heads to name per layer; heads are numbered from 1.

    Returns:
        Lines without a line break at the end.

    Raises:
        ModelNotReady: as :func:`read_head_weights`.
    """
    lines = []
    for path, layers in read_head_weights(source).items():
        values = np.stack(list(layers.values()))
        lines.append(
            f"{PATHS[path]}: {values.shape[0]} layers x {values.shape[1]} heads, "
            f"{values.min():.3f} to {values.max():.3f}, mean {values.mean():.3f} (1 = as pretrained)"
        )
        column = 15 * named
        lines.append(f"layer    min   mean    max  {'raised heads':<{column}}  lowered heads")
        for layer, scale in layers.items():
            order = np.argsort(scale, kind="stable")
            raised = _named(scale, order[::-1][:named], +1)
            lowered = _named(scale, order[:named], -1)
            numbers = f"{layer:5d}  {scale.min():5.3f}  {scale.mean():5.3f}  {scale.max():5.3f}"
            lines.append(f"{numbers}  {raised:<{column}}  {lowered}")
    return "\n".join(lines)


def _named(scale: np.ndarray, heads: np.ndarray, sign: int) -> str:
    chosen = [f"{head + 1} ({scale[head]:.3f})" for head in heads if sign * (scale[head] - 1) >= 0.0005]
    return ", ".join(chosen) or "-"


def _panel(panel: Axes, title: str, layers: dict[int, np.ndarray], reach: float) -> AxesImage:
    import matplotlib

    values = np.stack(list(layers.values()))
    colours = matplotlib.colormaps[COLOURS]
    digits = 2 if reach >= 0.05 else 3
    drawn = panel.imshow(values, cmap=colours, vmin=1 - reach, vmax=1 + reach, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = colours((value - 1 + reach) / (2 * reach))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        panel.text(
            column,
            row,
            f"{value:.{digits}f}",
            ha="center",
            va="center",
            fontsize=9 - digits,
            color="w" if dark else "k",
        )
    panel.set_title(title, fontsize=9)
    panel.set_xticks(range(values.shape[1]), [str(head + 1) for head in range(values.shape[1])])
    panel.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    panel.tick_params(length=0)
    panel.set_xlabel("head")
    panel.set_ylabel("layer")
    return drawn


def _from_checkpoint(checkpoint: Checkpoint) -> HeadWeights:
    from medzsad.detectors.headclip.prompts import HeadWeights

    prefix = "head_weights."
    tensors = {n.removeprefix(prefix): t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}
    if checkpoint.method not in ("headclip", "anomalyclip") or not tensors:
        raise ModelNotReady(f"a checkpoint of method {checkpoint.method!r} has no head weights")
    settings = checkpoint.settings
    try:
        weights = HeadWeights(
            tuple(settings["head_layers"]),
            next(iter(tensors.values())).shape[-1],
            vv_start=settings["vv_start"],
            paths=settings["head_paths"],
            parametrisation=settings["head_parametrisation"],
        )
        weights.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ModelNotReady("the checkpoint's head weights do not fit its settings") from error
    return weights
