"""Defects of manufactured things: scratches, cracks, holes, stains, dents, chips, foreign patches, colour.

Each function changes a canvas and returns the mask (N, S, S) of what it changed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthetic.canvas import Canvas, blend, box, sample_at, step
from synthetic.fields import Random
from synthetic.lesions import lesion_shape


def add_defect(r: Random, canvas: Canvas, active: Tensor) -> Tensor:
    """Return a defect of a random kind in each image with ``active`` 1; returns the mask (N, S, S)."""
    n = len(canvas.grey)
    kinds = r.pick(n, len(DEFECTS))
    mask = torch.zeros_like(canvas.grey)
    for index, defect in enumerate(DEFECTS):
        chosen = ((kinds == index) & (active.flatten() > 0)).nonzero()[:, 0]
        if len(chosen):
            part = canvas.take(chosen)
            mask[chosen] = defect(r, part) * (part.inside > 0.5)
            canvas.put(chosen, part)
    return mask


def line_frame(r: Random, n: int, reach: float) -> tuple[Tensor, Tensor]:
    """Coordinates along and across a random line: two (N, S, S)."""
    angle = r.uniform(n, 0, math.pi)
    x, y = r.x - r.uniform(n, -reach, reach), r.y - r.uniform(n, -reach, reach)
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


def scratch(r: Random, canvas: Canvas) -> Tensor:
    """Thin bent lines, lighter or darker, alone or in a bundle."""
    n = len(canvas.grey)
    along, across = line_frame(r, n, 0.6)
    across = across + r.uniform(n, -0.8, 0.8) * along.square() + 0.03 * r.field(n, 5)
    bundle = r.uniform(n, 0.06, 0.2)
    repeated = (across + bundle / 2).remainder(bundle) - bundle / 2
    across = torch.where((r.coin(n, 0.25) > 0) & (across.abs() < 1.5 * bundle), repeated, across)
    ends = step(r.uniform(n, 0.1, 0.7) - along.abs(), 0.02)
    return paint(r, canvas, step(r.uniform(n, 0.008, 0.035) - across.abs(), 0.006) * ends, 0.6)


def crack(r: Random, canvas: Canvas) -> Tensor:
    """Return a ragged dark line, sometimes with a branch."""
    n = len(canvas.grey)
    ragged = 0.1 * r.field(n, 4) + 0.05 * r.field(n, 10) + 0.02 * r.field(n, 28)
    total = torch.zeros_like(canvas.grey)
    for branch in range(2):
        along, across = line_frame(r, n, 0.4)
        width = r.uniform(n, 0.006, 0.03) * (1 + 0.5 * r.field(n, 9)).clamp_min(0.2)
        line = step(width - (across + ragged).abs(), 0.006)
        line = line * step(r.uniform(n, 0.15, 0.9) - (along + 0.2).abs(), 0.03)
        total = torch.maximum(total, line * (r.coin(n, 0.3) if branch else 1))
    return paint(r, canvas, total, 0.9)


def holes(r: Random, canvas: Canvas) -> Tensor:
    """One or a few blowholes: dark, with a lighter rim on one side."""
    n = len(canvas.grey)
    total = torch.zeros_like(canvas.grey)
    for index in range(3):
        depth, _ = lesion_shape(r, n, canvas.inside, r.uniform(n, 0.02, 0.07), lying=0.0)
        alpha = torch.sigmoid(depth / 0.12)
        total = torch.maximum(total, alpha * (r.coin(n, 0.35) if index else 1))
    canvas.grey = canvas.grey + 0.15 * r.uniform(n) * (total.roll((1, 1), (1, 2)) - total).clamp_min(0)
    return paint(r, canvas, total, 0.85)


def paint(r: Random, canvas: Canvas, alpha: Tensor, dark: float) -> Tensor:
    """Darkens (with chance ``dark``) or lightens where ``alpha`` is high; returns that place."""
    n = len(canvas.grey)
    alpha = alpha * step(canvas.inside - 0.5, 0.1)
    down = canvas.grey * r.uniform(n, 0.1, 0.65)
    up = canvas.grey + r.uniform(n, 0.15, 0.5)
    value = torch.where((r.coin(n, dark) > 0) & (canvas.grey > 0.12), down, up)
    canvas.grey = blend(canvas.grey, value, alpha)
    return (alpha > 0.4).float()


def patch(r: Random, canvas: Canvas, low: float = 0.06, high: float = 0.45) -> tuple[Tensor, Tensor, Tensor]:
    """Return an irregular region: opacity and depth (N, S, S), and its centre's index."""
    n = len(canvas.grey)
    radius = low * (high / low) ** r.uniform(n)
    core = step(canvas.inside - 0.5, 0.1)
    depth, centre = lesion_shape(r, n, core, radius, rough=1.4)
    soft = torch.maximum(r.uniform(n, 0.02, 0.2), 0.6 / (radius * r.size))
    return torch.sigmoid(2 * depth / soft) * core, depth, centre


def stain(r: Random, canvas: Canvas) -> Tensor:
    """Return a soft spot of other brightness or colour; the material shows through."""
    n = len(canvas.grey)
    alpha, _, _ = patch(r, canvas)
    factor = torch.where(r.coin(n, 0.7) > 0, r.uniform(n, 0.35, 0.8), r.uniform(n, 1.25, 2.0))
    canvas.grey = blend(canvas.grey, (canvas.grey * factor).clamp(0, 1.1), alpha)
    colour = torch.stack([r.uniform(n, 0.4, 1) for _ in range(3)], 1)
    canvas.tint = blend(canvas.tint, colour, (alpha * r.coin(n, 0.4) * r.uniform(n, 0.3, 1))[:, None])
    return (alpha > 0.5).float()


def dent(r: Random, canvas: Canvas) -> Tensor:
    """Return a hollow or bump: light on one side, dark on the other."""
    n = len(canvas.grey)
    alpha, depth, _ = patch(r, canvas, 0.06, 0.3)
    slope = torch.gradient((depth.clamp(-0.4, 1) * 3).tanh(), dim=(1, 2))
    angle = r.uniform(n, 0, 2 * math.pi)
    light = (slope[1] * angle.cos() + slope[0] * angle.sin()) * r.size / 24
    canvas.grey = (canvas.grey * (1 + r.uniform(n, 0.5, 1.5) * light.clamp(-0.7, 0.9))).clamp(0, 1.1)
    return (alpha > 0.4).float()


def missing(r: Random, canvas: Canvas) -> Tensor:
    """Return a part broken off at the edge, or a hole right through: the ground shows."""
    n = len(canvas.grey)
    solid = canvas.inside
    around = box(solid, 7)
    edge = solid * (1 - around).clamp_min(0) + 0.002 * solid
    where = torch.where(r.coin(n, 0.75) > 0, edge, solid)
    depth, _ = lesion_shape(r, n, where, 0.06 * 5 ** r.uniform(n), rough=1.5)
    alpha = torch.sigmoid(depth / 0.04) * step(solid - 0.5, 0.1)
    value = blend(canvas.ground, r.uniform(n), r.coin(n, 0.3)) * (1 + 0.08 * r.field(n, 20))
    canvas.grey = blend(canvas.grey, value, alpha)
    canvas.tint = blend(canvas.tint, torch.ones_like(canvas.tint), alpha[:, None])
    return (alpha > 0.5).float()


def foreign(r: Random, canvas: Canvas) -> Tensor:
    """Return a patch from elsewhere: another material, or the same turned or moved (FPI, PII)."""
    n = len(canvas.grey)
    alpha, _, centre = patch(r, canvas, 0.06, 0.4)
    moved = torch.where(
        r.coin(n, 0.5) > 0, canvas.grey.transpose(1, 2), canvas.grey.flip(2).roll(r.size // 3, 1)
    )
    other = sample_at(canvas.grey, centre) * (1 + r.uniform(n, 0.1, 0.5) * r.fractal(n, 14, 3))
    value = torch.where(r.coin(n, 0.5) > 0, moved, other.clamp(0, 1.1))
    canvas.grey = blend(canvas.grey, value, alpha * r.uniform(n, 0.5, 1))
    return (alpha > 0.5).float()


def colour(r: Random, canvas: Canvas) -> Tensor:
    """Paint or dirt of a strong colour."""
    n = len(canvas.grey)
    alpha, _, _ = patch(r, canvas, 0.04, 0.3)
    shade = torch.stack([r.uniform(n, 0.05, 1) for _ in range(3)], 1)
    canvas.tint = blend(canvas.tint, shade, alpha[:, None])
    canvas.grey = blend(canvas.grey, blend(canvas.grey, r.uniform(n, 0.3, 1), 0.7), alpha)
    return (alpha > 0.5).float()


DEFECTS = (scratch, crack, crack, holes, stain, stain, dent, missing, foreign, foreign, colour)
