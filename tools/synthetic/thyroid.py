"""Ultrasound of the thyroid gland, nearer to what scanners show than :mod:`synthetic.ultrasound`.

Normal images show what is easily taken for a nodule: round dark vessels with bright walls, the windpipe and
its shadow, spindles of muscle, ends of the gland. Nodules are seldom much darker than the gland: they show by
their own texture (sponge, cysts, calcium), a rim, or their bulk, and may fill most of the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from synthetic.canvas import Canvas, blend, sample_at, step
from synthetic.fields import Random
from synthetic.lesions import lesion_shape
from synthetic.ultrasound import on_screen, screen

VESSELS = 3  # at most


def thyroid(r: Random, n: int) -> Canvas:
    """Draw skin, muscles, gland, windpipe and vessels on a screen, without a nodule."""
    x = r.x.expand(n, -1, -1)
    window, top = screen(r, n)
    depth = r.y - top - 0.1 + 0.1 * r.uniform(n) * r.field(n, 3) + 0.12 * r.uniform(n, -1, 1) * x
    roof, floor = r.uniform(n, 0.25, 0.7), r.uniform(n, 0.9, 1.6)  # of the gland, below the skin
    # Fibres run along the layers, brightest under the skin; fascias are thin bright lines.
    rows = F.interpolate(r.normal(n, 1, 24, 4), (r.size, r.size), mode="bicubic")[:, 0]
    near = torch.exp(-(depth / r.uniform(n, 0.15, 0.5)).square())
    grey = r.uniform(n, 0.1, 0.28) + r.uniform(n, 0.05, 0.3) * near
    grey = grey + r.uniform(n, 0.03, 0.12) * rows * (0.4 + near)
    grey = grey + r.uniform(n, 0.02, 0.1) * r.field(n, (44, 7)) + 0.05 * r.uniform(n) * r.fractal(n, 4, 2)
    for cells in ((7, 2), (11, 3)):
        line = step(0.07 - r.field(n, cells).abs(), 0.03) * step(r.field(n, 4), 0.3)
        grey = grey + r.uniform(n, 0, 0.35) * line
    # A muscle over the gland: a dark spindle with stripes.
    middle, thick = roof - r.uniform(n, 0.05, 0.2), r.uniform(n, 0.04, 0.14)
    muscle = step(thick * (1 - 0.4 * (x - r.uniform(n, -0.6, 0.6)).square()) - (depth - middle).abs(), 0.02)
    stripes = r.uniform(n, 0.05, 0.15) + 0.05 * r.field(n, (60, 6))
    grey = blend(grey, stripes, 0.8 * muscle * r.coin(n, 0.7))
    # The gland: one or two lobes, even and grainy, in a thin bright capsule.
    side = 1 - 2 * r.coin(n, 0.5)
    across = (x - side * r.uniform(n, -0.2, 0.5)) / r.uniform(n, 0.45, 1.3)
    down = (depth - (roof + floor) / 2) / ((floor - roof) / 2)
    rim = 1 - (across.square() + down.square()).sqrt() + 0.12 * r.field(n, 5)
    lobe = step(rim, 0.03)
    even = r.uniform(n, 0.2, 0.42) + 0.025 * r.field(n, 6) + r.uniform(n, 0.01, 0.05) * r.field(n, 34)
    grey = blend(grey, even, r.uniform(n, 0.5, 0.95) * lobe)
    grey = grey + r.uniform(n, 0, 0.25) * torch.exp(-(rim / 0.05).square()) * step(r.field(n, 5), 0.3)
    # The windpipe: a bright arch, rings and shadow below.
    wide = r.uniform(n, 0.15, 0.4)
    dx, dy = x + side * r.uniform(n, 0.5, 1.0), depth - roof - r.uniform(n, 0.15, 0.5)
    arch = (dx / wide).square() + 1.2 * (dy / wide).clamp_max(0).square()
    pipe = step(1 - arch, 0.06)
    has = r.coin(n, 0.45)
    rings = 0.04 + 0.12 * torch.cos(r.uniform(n, 14, 40) * dy) * torch.exp(-2 * dy.clamp_min(0))
    grey = blend(grey, rings.clamp_min(0), 0.95 * pipe * has)
    grey = grey + r.uniform(n, 0.1, 0.5) * torch.exp(-((arch - 1) / 0.25).square()) * step(-dy, 0.05) * has
    # Vessels: round and dark, with bright walls, brighter below.
    gland = lobe * (1 - pipe * has)
    for _ in range(VESSELS):
        radius, flat = r.uniform(n, 0.05, 0.2), r.uniform(n, 0.8, 1.6)
        vx, vy = x - side * r.uniform(n, -1, 1), depth - r.uniform(n, 0.4, 1.4)
        wall = radius - (vx.square() / flat + vy.square() * flat).sqrt() + 0.03 * r.field(n, 4) * radius
        there = r.coin(n, 0.45)
        grey = blend(grey, r.uniform(n, 0.01, 0.07), step(wall, 0.012) * there)
        grey = grey + r.uniform(n, 0.05, 0.4) * torch.exp(-((wall + 0.015) / 0.015).square()) * there
        below = step(0.8 * radius - vx.abs(), 0.03) * step(vy - radius, 0.05)
        grey = grey * (1 + r.uniform(n, 0, 0.5) * below * there)
        gland = gland * (1 - step(wall + 0.03, 0.02) * there)
    shadow = step(F.interpolate(r.normal(n, 1, 1, 12), (1, r.size), mode="bicubic")[:, 0] - 1.0, 0.25)
    grey = grey * (1 - r.uniform(n, 0.2, 0.7) * shadow * step(depth - r.uniform(n, 0, 0.8), 0.1))
    fade = torch.exp(-r.uniform(n, 0, 1.5) * (depth - r.uniform(n, 0.5, 1.5)).clamp_min(0))
    canvas = Canvas((grey * fade * r.uniform(n, 0.7, 1.3)).clamp(0, 1), gland * window)
    return on_screen(r, canvas, window)


def add_gland_nodule(r: Random, canvas: Canvas, active: Tensor) -> Tensor:
    """Return a nodule of the gland in each image with ``active`` 1.

    Changes ``canvas``; returns the mask (N, S, S).
    """
    n = len(canvas.grey)
    core = step(canvas.inside - 0.5, 0.1)
    radius = 0.12 * 4.5 ** r.uniform(n)
    depth, centre = lesion_shape(r, n, core, radius, rough=0.9, lying=0.7)
    soft = torch.maximum(r.uniform(n, 0.02, 0.15), 0.6 / (radius * r.size))
    # What is large pushes its surroundings away: it ends at its own border, not at that of the gland.
    alpha = torch.sigmoid(2 * depth / soft) * canvas.view * active
    base = (canvas.grey * core).sum((1, 2), keepdim=True) / core.sum((1, 2), keepdim=True).clamp_min(1)
    kind = r.pick(n, 10).view(n, 1, 1)
    factor = torch.where(kind < 4, r.uniform(n, 0.35, 0.75), r.uniform(n, 0.8, 1.25))  # dark, or alike
    factor = torch.where(kind == 9, r.uniform(n, 0.05, 0.25), factor)  # a cyst
    own = 1 + r.uniform(n, 0.05, 0.3) * r.fractal(n, 9, 3) + r.uniform(n, 0, 0.15) * r.field(n, 34)
    value = blend(base, sample_at(canvas.grey, centre), r.uniform(n, 0, 0.4)) * factor * own
    # A sponge of small holes, a few large cysts with walls, calcium.
    holes = step(r.field(n, 24) - r.uniform(n, 0.4, 1.2), 0.15) * r.coin(n, 0.35)
    cysts = step(r.field(n, 9) - r.uniform(n, 0.8, 1.5), 0.08) * r.coin(n, 0.3)
    value = value * (1 - r.uniform(n, 0.4, 0.8) * holes) * (1 - r.uniform(n, 0.7, 0.95) * cysts)
    value = value + r.uniform(n, 0.2, 0.6) * step(r.field(n, 44) - 2.1, 0.1) * r.coin(n, 0.3)
    canvas.grey = blend(canvas.grey, value, alpha)
    halo = torch.exp(-((depth - 0.03) / r.uniform(n, 0.04, 0.1)).square()) * canvas.view * active
    alike = ((kind >= 4) & (kind < 9)).float()
    rimmed = torch.maximum(r.coin(n, 0.2), 0.6 * alike)
    canvas.grey = canvas.grey * (1 - r.uniform(n, 0.2, 0.7) * halo * rimmed)
    beside = sample_at(r.x.expand(n, -1, -1), centre)
    under = step(0.8 * radius - (r.x - beside).abs(), 0.05) * step(-depth, 0.1)
    under = under * step(r.y - sample_at(r.y.expand(n, -1, -1), centre), 0.05) * active
    canvas.grey = (canvas.grey * (1 + r.uniform(n, -0.6, 0.5) * r.coin(n, 0.3) * under)).clamp(0, 1)
    return (alpha > 0.5).float()
