"""Skin from near: tone, fine relief, freckles, hairs, gel bubbles, rulers; pigmented and red lesions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthetic.canvas import Canvas, blend, step
from synthetic.fields import Random
from synthetic.lesions import lesion_shape
from synthetic.overlays import add_view, draw


def skin(r: Random, n: int) -> Canvas:
    """Healthy skin; sometimes seen through a round tube, sometimes with marks of a ruler."""
    x, y = r.x.expand(n, -1, -1), r.y.expand(n, -1, -1)
    relief = 0.03 * r.uniform(n) * r.field(n, 50) - 0.05 * r.uniform(n).square() * r.field(n, 34).abs()
    grey = r.uniform(n, 0.55, 0.95) + relief + 0.03 * r.fractal(n, 3, 3)
    away = (x - r.uniform(n, -0.4, 0.4)).square() + (y - r.uniform(n, -0.4, 0.4)).square()
    grey = grey * (1 - r.uniform(n, 0, 0.35) * away)
    green = r.uniform(n, 0.6, 0.9)
    hue = torch.stack([torch.ones_like(green), green, green * r.uniform(n, 0.7, 1.1)], 1)
    blush = 0.06 * r.uniform(n) * r.field(n, 4) + 0.1 * r.uniform(n) * step(r.field(n, 40) - 1.6, 0.2)
    tint = hue * (1 - torch.stack([0 * blush, blush, blush], 1))
    freckles = step(r.field(n, 24) - r.uniform(n, 1.8, 3.0), 0.15) * r.coin(n, 0.3) * r.uniform(n, 0.1, 0.5)
    grey = grey * (1 - freckles)
    canvas = Canvas(grey.clamp(0, 1.1), torch.ones_like(grey), tint)
    add_view(r, canvas)
    ruled = (r.y.remainder(0.08) < 0.015) & (r.x.abs() > 0.8) & (r.x.abs() < r.uniform(n, 0.85, 0.95))
    draw(canvas, torch.zeros(n, 3, 1, 1), ruled * r.coin(n, 0.1))
    canvas.inside = canvas.view
    return canvas


def hairs(r: Random, canvas: Canvas) -> None:
    """Thin bent lines over everything, also over lesions, and bubbles of gel: no lesions."""
    n = len(canvas.grey)
    hairy = r.coin(n, 0.4)
    main = r.uniform(n, 0, math.pi)
    for _ in range(5):
        angle = main + 0.5 * r.normal(n, 1, 1)
        x, y = r.x - r.uniform(n, -0.9, 0.9), r.y - r.uniform(n, -0.9, 0.9)
        along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        across = across + r.uniform(n, -0.5, 0.5) * along.square()
        line = step(r.uniform(n, 0.003, 0.012) - across.abs(), 0.004)
        line = line * step(r.uniform(n, 0.2, 1.2) - along.abs(), 0.02) * hairy * r.coin(n, 0.7)
        canvas.grey = blend(canvas.grey, r.uniform(n, 0.1, 0.4) * canvas.grey, line)
    rings = step(0.06 - (r.field(n, 14) - r.uniform(n, 2.0, 2.6)).abs(), 0.04) * r.coin(n, 0.2)
    canvas.grey = blend(canvas.grey, 1.0, 0.6 * rings)


def add_spot(r: Random, canvas: Canvas, active: Tensor) -> Tensor:
    """Return a pigmented or red lesion in each image with ``active`` 1; returns the mask (N, S, S)."""
    n = len(canvas.grey)
    radius = 0.1 * 7.0 ** r.uniform(n)
    core = step(canvas.inside - 0.5, 0.1)
    middle = torch.exp(-2 * (r.x.square() + r.y.square()))
    depth, _ = lesion_shape(r, n, core * middle, radius, rough=1.2)
    soft = torch.maximum(r.uniform(n, 0.05, 0.4), 0.6 / (radius * r.size))
    alpha = torch.sigmoid(2 * depth / soft) * core * active
    # Pigment: several browns, a net, darker or paler parts; else red, scaly.
    strength = r.uniform(n, 0.15, 0.75) * (1 + 0.35 * r.fractal(n, 6, 3))
    net = step(0.3 - r.field(n, 44).abs(), 0.15) * r.uniform(n, 0, 0.3) * r.coin(n, 0.4)
    pigment = (strength + net).clamp(0.05, 0.9)
    red = r.coin(n, 0.2)
    fade = torch.stack([0.75 * pigment * (1 - 0.8 * red), pigment, (1.15 * pigment).clamp_max(0.95)], 1)
    pale = step(r.field(n, 7) - r.uniform(n, 0.8, 2.5), 0.2)
    canvas.tint = canvas.tint * (1 - fade * (alpha * (1 - 0.6 * pale))[:, None])
    return (alpha > 0.5).float()
