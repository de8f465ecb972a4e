"""Endoscopy of the colon, nearer to what endoscopes show than :mod:`synthetic.endoscopy`, which it builds on.

Normal images show what is easily taken for a polyp: folds that hide what is behind them, walls overexposed by
the lamp, trees of vessels. Growths are as red as the wall or hardly redder, lobed or flat, in the light or in
the dark, from small to filling the picture, and often cut off by its edge.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthetic.canvas import blend, sample, sample_at, step
from synthetic.endoscopy import Mucosa, debris, endoscopy, shade
from synthetic.fields import Random
from synthetic.lesions import lesion_shape

FOLDS = 3  # at most


def colon(r: Random, n: int) -> Mucosa:
    """Draw a tube or a wall with folds in front of each other, vessels and glare."""
    canvas = endoscopy(r, n)
    for _ in range(FOLDS):
        add_fold(r, canvas)
    add_vessels(r, canvas)
    add_glare(r, canvas)
    shade(canvas, brightest=2.0)
    canvas.inside = canvas.view * step(canvas.light - 0.08, 0.03)
    debris(r, canvas)
    return canvas


def add_fold(r: Random, canvas: Mucosa) -> None:
    """Put a part of the wall in front, whose rim shines and whose back lies in shadow."""
    n = len(canvas.grey)
    angle, reach = r.uniform(n, 0, 2 * math.pi), r.uniform(n, 0.5, 2.5)
    x = r.x - r.uniform(n, -0.7, 0.7) - reach * angle.cos()
    y = r.y - r.uniform(n, -0.7, 0.7) - reach * angle.sin()
    # In front, where positive: a large disc with a crooked border, beginning and ending somewhere.
    front = reach - (x.square() + y.square()).sqrt() + r.uniform(n, 0, 0.15) * r.field(n, 4)
    part = step(r.field(n, 3) + r.uniform(n, -0.5, 1.5), 0.3) * r.coin(n, 0.45)
    shadow = step(-front, 0.01) * torch.exp(front.clamp_max(0) / r.uniform(n, 0.05, 0.4))
    rim = step(front, 0.01) * torch.exp(-front.clamp_min(0) / r.uniform(n, 0.03, 0.25))
    bright = r.uniform(n, -0.1, 0.7)
    canvas.light = canvas.light * (1 + part * (bright * rim - r.uniform(n, 0.2, 0.75) * shadow))
    canvas.height = canvas.height + part * r.uniform(n, 0, 0.08) * rim


def add_vessels(r: Random, canvas: Mucosa) -> None:
    """Add trees of thin vessels, here and there."""
    n = len(canvas.grey)
    warp_x, warp_y = r.x + 0.05 * r.field(n, 9), r.y + 0.05 * r.field(n, 9)
    tree = torch.zeros_like(canvas.grey)
    for cells, width in ((6, 0.06), (12, 0.07), (20, 0.08)):
        ridge = sample(r.field(n, cells), warp_x, warp_y)
        tree = torch.maximum(tree, step(width - ridge.abs(), 0.03) * step(r.field(n, 5) - 0.1, 0.3))
    canvas.red = canvas.red + tree * r.uniform(n, 0.1, 0.45) * r.coin(n, 0.5)


def add_glare(r: Random, canvas: Mucosa) -> None:
    """Overexpose the wall next to the lamp: red saturates first, then it looks yellow, then white."""
    n = len(canvas.grey)
    x, y = r.x - r.uniform(n, -0.9, 0.9), r.y - r.uniform(n, -0.9, 0.9)
    near = torch.exp(-((x.square() + y.square()) / r.uniform(n, 0.05, 0.6)) + 0.4 * r.field(n, 4))
    canvas.light = canvas.light * (1 + r.uniform(n, 0.2, 1.2) * near.clamp_max(1.5) * r.coin(n, 0.6))


def add_growth(r: Random, canvas: Mucosa, active: Tensor) -> Tensor:
    """Return a polyp or a flat growth in each image with ``active`` 1.

    Changes ``canvas``; returns the mask (N, S, S).
    """
    n = len(canvas.grey)
    radius = 0.1 * 7.0 ** r.uniform(n)
    core = step(canvas.inside - 0.5, 0.1)
    middle = torch.exp(-1.2 * (r.x.square() + r.y.square()))
    middle = blend(middle, torch.ones_like(middle), r.coin(n, 0.4))
    depth, centre = lesion_shape(r, n, core * middle, radius, rough=r.uniform(n, 0.4, 1.3))
    flat = r.coin(n, 0.25)
    soft = torch.maximum(r.uniform(n, 0.02, 0.12) + 0.1 * flat, 0.6 / (radius * r.size))
    alpha = torch.sigmoid(2 * depth / soft) * active
    dome = (depth * (2 - depth)).clamp(0, 1) ** r.uniform(n, 0.5, 1)
    # Large ones are lobed, like a cauliflower or a brain.
    furrows = 1 - 2 * r.field(n, 7 + 5 * int(r.pick(1, 3))).abs().clamp_max(1)
    lobes = r.field(n, 9) * r.uniform(n, 0, 0.09) + r.field(n, 22) * r.uniform(n, 0, 0.04)
    lobes = lobes + furrows * r.uniform(n, 0, 0.12) * r.coin(n, 0.4)
    lift = radius.clamp_max(0.3) * (r.uniform(n, 0.3, 1.6) * dome + 1.5 * lobes * dome)
    raised = alpha * (1 - 0.8 * flat)
    # Its light: that of the wall at its place; darker where it turns away from the lamp.
    local = sample_at(canvas.light, centre)
    own = local * torch.exp(r.uniform(n, -0.5, 0.5)) + r.uniform(n, 0, 0.12)
    turned = r.uniform(n, 0, 2 * math.pi)
    slope = (r.x * turned.cos() + r.y * turned.sin()) * r.uniform(n, -0.5, 0.5)
    own = own * (1 + slope + r.uniform(n, 0, 0.5) * (dome - 0.6)).clamp(0.3, 1.7)
    canvas.light = blend(canvas.light, own, raised * r.uniform(n, 0.3, 1)).clamp_max(2)
    canvas.height = blend(canvas.height, sample_at(canvas.height, centre), 0.75 * raised) + lift * raised
    # Its edge lies in a little shadow.
    foot = torch.exp(-(depth / 0.12).square()) * (1 - alpha) * active
    canvas.light = canvas.light * (1 - r.uniform(n, 0, 0.4) * foot * (1 - flat))
    spots = 0.2 * r.uniform(n) * r.field(n, 16) + 0.2 * r.uniform(n).square() * r.field(n, 40)
    shift = blend(r.uniform(n, -0.15, 0.3), r.uniform(n, 0.12, 0.5) * (2 * r.coin(n, 0.7) - 1), flat)
    canvas.red = blend(canvas.red, r.uniform(n, 0, 0.4) * canvas.red + spots + shift, alpha)
    kept_grey, kept_tint = canvas.grey, canvas.tint
    shade(canvas, brightest=2.0)
    # Away from it nothing changes: debris and instruments stay as they were.
    around = torch.sigmoid((depth + 0.35) / 0.06) * active
    canvas.grey = blend(kept_grey, canvas.grey, around)
    canvas.tint = blend(kept_tint, canvas.tint, around[:, None])
    return ((alpha > 0.5) & (core > 0.5)).float()
