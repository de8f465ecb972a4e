"""What devices draw around and over a picture: the frame of the view, text, panels, scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from synthetic.canvas import Canvas, blend, step
from synthetic.fields import Random


def draw(canvas: Canvas, colour: Tensor, alpha: Tensor) -> None:
    """Put ``colour`` (N, 3, S, S) or (N, 3, 1, 1) with opacity ``alpha`` (N, S, S) over all else."""
    if canvas.drawn is None:
        n, side, _ = canvas.grey.shape
        canvas.drawn, canvas.cover = torch.zeros(n, 3, side, side), torch.zeros(n, side, side)
    canvas.drawn = blend(canvas.drawn, colour, alpha[:, None])
    canvas.cover = torch.maximum(canvas.cover, alpha)
    canvas.view = canvas.view * (1 - alpha)


def add_view(r: Random, canvas: Canvas) -> None:
    """Return the visible part: all, an octagon, a disc or a rounded box; the frame is black or nearly."""
    n = len(canvas.grey)
    x, y = r.x - r.uniform(n, -0.06, 0.06), r.y - r.uniform(n, -0.06, 0.06)
    wide = r.uniform(n, 0.85, 1.1)
    x, y = (x.abs() * wide).expand(n, -1, -1), (y.abs() / wide).expand(n, -1, -1)
    forms = torch.stack(
        [
            0.5 * torch.maximum(x, y),
            torch.maximum(torch.maximum(x, y), (x + y) * r.uniform(n, 0.62, 0.75)),
            (x.square() + y.square()).sqrt() / 1.08,
            (x**8 + y**8) ** 0.125,
        ],
        1,
    )
    form = forms[torch.arange(n), r.pick(n, 4)]
    view = step(r.uniform(n, 0.86, 1.03) - form, 0.008)
    canvas.view = view
    frame = r.uniform(n, 0, 0.09) * r.coin(n, 0.4)
    draw(canvas, frame.unsqueeze(1).expand(n, 3, 1, 1), 1 - view)
    canvas.view = view


def add_panel(r: Random, canvas: Canvas, chance: float) -> None:
    """Return a box in a corner: black, or blue or green with a winding line (the instrument's position)."""
    n = len(canvas.grey)
    sx, sy = 2 * r.coin(n, 0.25) - 1, 1 - 2 * r.coin(n, 0.25)
    box = ((r.x * sx > r.uniform(n, 0.25, 0.65)) & (r.y * sy > r.uniform(n, 0.25, 0.65))).float()
    shade = torch.stack([r.uniform(n, 0, 0.2), r.uniform(n, 0, 0.7), r.uniform(n, 0, 0.7)], 1)
    shade = shade * r.coin(n, 0.65).unsqueeze(1)
    line = step(0.12 - r.field(n, 5).abs(), 0.05) * r.coin(n, 0.7)
    picture = shade + (line * r.uniform(n, 0.3, 1))[:, None] * (shade.amax(1, keepdim=True) > 0.05)
    draw(canvas, picture.clamp(0, 1), box * r.coin(n, chance))


def add_text(r: Random, canvas: Canvas, chance: float, *, margin: Tensor | None = None) -> None:
    """Rows of little marks that look like letters, at the left or right, or wherever ``margin`` is 1."""
    n, side = len(canvas.grey), r.size
    marks = F.interpolate((r.normal(n, 1, side // 2, side // 2) > -0.2).float(), (side, side))[:, 0]
    words = F.interpolate((r.normal(n, 1, side // 6, side // 6) > -0.3).float(), (side, side))[:, 0]
    rows = torch.arange(side).view(-1, 1)
    pitch = int(r.pick(1, 5)) + 5
    lines = (rows % pitch < max(2, pitch // 2)).float()
    if margin is None:
        reach = r.uniform(n, 0.45, 0.85)
        top = r.uniform(n, -0.9, 0.3)
        margin = ((r.x * (2 * r.coin(n, 0.25) - 1) > reach) & (r.y > top)).float()
        margin = margin * (r.y < top + r.uniform(n, 0.1, 0.6))
    ink = torch.stack([r.uniform(n, 0.6, 1) for _ in range(3)], 1)
    draw(canvas, ink, marks * words * lines * margin * r.coin(n, chance))
