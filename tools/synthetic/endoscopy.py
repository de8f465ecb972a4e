"""Endoscopy: a wall or a tube as a height field, lit from the camera; polyps and other lesions on it.

Folds and polyps are shaded by the same light, so that only their form and texture tell them apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from synthetic.canvas import Canvas, blend, box, sample_at, step
from synthetic.fields import Random
from synthetic.lesions import lesion_shape
from synthetic.overlays import add_panel, add_text, add_view


@dataclass
class Mucosa(Canvas):
    """A wall before it is lit; ``grey`` and ``tint`` follow from the rest (:func:`shade`).

    Attributes:
        height: (N, S, S), above the wall, in half-widths of the image.
        light: (N, S, S), what of the lamp's light arrives.
        red: (N, S, S), extra redness, about [-0.2, 0.5].
        hue: (N, 3, 1, 1), colour of the wall.
        lamp: (N, 3, 1, 1), place (x, y) and closeness of the lamp.
    """

    height: Tensor | None = None
    light: Tensor | None = None
    red: Tensor | None = None
    hue: Tensor | None = None
    lamp: Tensor | None = None


def endoscopy(r: Random, n: int) -> Mucosa:
    """Draw a tube with folds around a dark lumen, or a wall from the front, with vessels, frame and text."""
    x, y = r.x.expand(n, -1, -1), r.y.expand(n, -1, -1)
    tube = r.coin(n, 0.6)
    dx = x - r.uniform(n, -0.8, 0.8) + 0.12 * r.field(n, 3)
    dy = y - r.uniform(n, -0.8, 0.8) + 0.12 * r.field(n, 3)
    rho = (dx.square() + dy.square()).sqrt()
    # Folds: rings in perspective, present along part of the way around; on a wall, ridges anywhere.
    phase = r.uniform(n, 0.4, 1.9) * (rho + 0.1).log() + r.uniform(n, 0.1, 0.4) * r.field(n, 3)
    wave = 2 * math.pi * phase
    rings = torch.sin(wave) + 0.4 * torch.sin(2 * wave + 0.9)
    rings = rings * (rho + 0.1).clamp_max(0.8) * step(r.field(n, 3) + r.uniform(n, -0.3, 1.5), 0.3)
    ridge = (1 - r.fractal(n, 3, 2).abs() / r.uniform(n, 0.4, 1.3)).clamp_min(0).square()
    height = blend(0.22 * r.uniform(n) * ridge, r.uniform(n, 0.02, 0.14) * rings, tube)
    height = height + 0.09 * r.uniform(n) * r.field(n, 3) + 0.02 * r.uniform(n) * r.field(n, 10)
    height = height + 0.004 * r.uniform(n).square() * r.field(n, 40)
    depth = rho.square() / (rho.square() + r.uniform(n, 0.03, 0.5))
    wall = 1 - r.uniform(n, 0, 0.45) * (dx.square() + dy.square()).clamp_max(1.8)
    light = blend(wall, depth, tube) * (1 + 0.12 * r.field(n, 2)).clamp_min(0.3)
    vessels = step(0.05 - r.fractal(n, 5, 2).abs(), 0.02) * r.uniform(n, 0, 0.3) * r.coin(n, 0.6)
    red = vessels + 0.12 * r.uniform(n) * r.field(n, 4) + 0.06 * r.uniform(n) * r.field(n, 30)
    green = r.uniform(n, 0.42, 0.82)
    hue = torch.stack([torch.ones_like(green), green, green * r.uniform(n, 0.5, 1.05)], 1)
    narrow = r.coin(n, 0.07).unsqueeze(1)  # narrow-band light: brown and green
    hue = blend(hue, torch.stack([green, torch.ones_like(green) * 0.8, 0.9 * green], 1), narrow)
    lamp = torch.stack([r.uniform(n, -0.4, 0.4), r.uniform(n, -0.4, 0.4), r.uniform(n, 0.3, 1.1)], 1)
    canvas = Mucosa(
        torch.zeros_like(height),
        torch.ones_like(height),
        height=height,
        light=light,
        red=red,
        hue=hue,
        lamp=lamp,
    )
    add_view(r, canvas)
    add_panel(r, canvas, 0.3)
    add_text(r, canvas, 0.45)
    shade(canvas)
    canvas.inside = canvas.view * step(light - 0.12, 0.03)
    debris(r, canvas)
    return canvas


def shade(canvas: Mucosa, brightest: float = 1.15) -> None:
    """Lights the wall: ``grey``, up to ``brightest``, and ``tint`` from height, light and redness."""
    side = canvas.height.shape[-1]
    gy, gx = (g * side / 2 for g in torch.gradient(canvas.height, dim=(1, 2)))
    line = torch.linspace(-1, 1, side)
    lx, ly, near = canvas.lamp.unbind(1)
    lx, ly = near * (lx - line), near * (ly - line.view(-1, 1))
    lambert = (1 - gx * lx - gy * ly) / ((1 + gx.square() + gy.square()) * (1 + 0.5 * (lx**2 + ly**2))).sqrt()
    # Little light comes out of hollows.
    reach = side // 14
    hollow = box(canvas.height, reach) / box(torch.ones_like(canvas.height), reach)
    hollow = (3 * (hollow - canvas.height)).clamp(-0.25, 0.5)
    grey = 0.85 * canvas.light * ((lambert + 0.35) / 1.35).clamp_min(0.1) * (1 - hollow)
    canvas.grey = grey.clamp(0, brightest)
    # Dark places are redder, for light that came deep through the wall is.
    deep = canvas.grey.clamp(0.03, 1)[:, None] ** torch.tensor([-0.25, 0.05, 0.12]).view(1, 3, 1, 1)
    red = torch.stack([0.3 * canvas.red, -canvas.red, -0.9 * canvas.red], 1)
    canvas.tint = canvas.hue * deep * (1 + red).clamp(0.2, 1.5)


def debris(r: Random, canvas: Mucosa) -> None:
    """Things that are no lesions: yellow residue, and a metal instrument."""
    n = len(canvas.grey)
    yellow = step(r.fractal(n, 5, 3) - r.uniform(n, 1.3, 2.2), 0.1) * r.coin(n, 0.2)
    colour = torch.stack([torch.ones(n, 1, 1), r.uniform(n, 0.7, 0.95), r.uniform(n, 0.1, 0.5)], 1)
    canvas.tint = blend(canvas.tint, colour, (0.7 * yellow)[:, None])
    angle = r.uniform(n, 0, 2 * math.pi)
    x, y = r.x - r.uniform(n, -0.5, 0.5), r.y - r.uniform(n, -0.5, 0.5)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    width = r.uniform(n, 0.015, 0.1)
    bar = step(width - across.abs(), 0.01) * step(along, 0.02) * r.coin(n, 0.1)
    canvas.grey = blend(canvas.grey, 0.3 + 0.6 * (1 - (across / width).square()).clamp_min(0), bar)
    canvas.tint = blend(canvas.tint, torch.ones_like(canvas.tint), bar[:, None])
    canvas.inside = canvas.inside * (1 - bar)


def add_polyp(r: Random, canvas: Mucosa, active: Tensor) -> Tensor:
    """Return a lesion in each image with ``active`` 1: mostly a polyp, else a patch, an ulcer or blood.

    Changes ``canvas``; returns the mask (N, S, S).
    """
    n = len(canvas.grey)
    radius = 0.12 * 5.0 ** r.uniform(n)
    core = step(canvas.inside - 0.5, 0.1)
    middle = torch.exp(-1.5 * (r.x.square() + r.y.square()))  # the lamp and the eye are led to it
    depth, centre = lesion_shape(r, n, core * middle, radius, rough=0.6)
    flat = r.coin(n, 0.2)
    soft = torch.maximum(r.uniform(n, 0.02, 0.1) + 0.12 * flat, 0.6 / (radius * r.size))
    alpha = torch.sigmoid(2 * depth / soft) * active
    dome = (depth * (2 - depth)).clamp(0, 1) ** 0.7
    lobes = r.field(n, 9) * r.uniform(n, 0, 0.09) + r.field(n, 22) * r.uniform(n, 0, 0.03)
    lift = radius.clamp_max(0.3) * (r.uniform(n, 0.4, 1.7) * dome + lobes * dome)
    before = canvas.grey
    # The wall does not go on through a polyp, and its top is nearer to the lamp.
    raised = alpha * (1 - flat)
    local = sample_at(canvas.light, centre)
    nearer = local * r.uniform(n, 0.95, 1.5) + r.uniform(n, 0, 0.2)
    nearer = nearer * (1 + r.uniform(n, 0, 0.5) * (dome - 0.6))
    canvas.light = blend(canvas.light, nearer, raised * r.uniform(n, 0.6, 1)).clamp_max(1.3)
    canvas.height = blend(canvas.height, sample_at(canvas.height, centre), 0.75 * raised) + lift * raised
    own = 0.15 * r.uniform(n) * r.field(n, 16) + r.uniform(n, -0.15, 0.3)
    change = blend(own, r.uniform(n, 0.2, 0.6) * (2 * r.coin(n, 0.75) - 1), flat)
    canvas.red = blend(canvas.red, 0.3 * canvas.red + change, alpha)
    dark = flat * r.coin(n, 0.3)
    canvas.light = canvas.light * (1 - 0.5 * dark * alpha)
    kept_grey, kept_tint = canvas.grey, canvas.tint
    shade(canvas)
    # Away from the lesion nothing changes: debris and instruments stay as they were.
    around = torch.sigmoid((depth + 0.35) / 0.06) * active
    canvas.grey = blend(kept_grey, canvas.grey, around)
    canvas.tint = blend(kept_tint, canvas.tint, around[:, None])
    # An ulcer: a pale floor.
    floor = torch.sigmoid((depth - 0.35) / 0.08) * flat * r.coin(n, 0.35) * active
    pale = torch.stack([torch.ones(n, 1, 1), r.uniform(n, 0.85, 1), r.uniform(n, 0.6, 0.9)], 1)
    canvas.tint = blend(canvas.tint, pale, 0.8 * floor[:, None])
    canvas.grey = blend(canvas.grey, before * 1.15, floor)
    return ((alpha > 0.5) & (core > 0.5)).float()
