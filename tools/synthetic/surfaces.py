"""Manufactured things: rolled, brushed, grained and woven surfaces, and objects on a plain ground."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthetic.canvas import Canvas, blend, sample, step, texture
from synthetic.fields import Random
from synthetic.overlays import add_text


def surface(r: Random, n: int) -> Canvas:
    """Return a flat material that fills the image or ends at a crooked edge, unevenly lit."""
    x, y = r.x.expand(n, -1, -1), r.y.expand(n, -1, -1)
    kinds = torch.stack([rolled(r, n), grained(r, n), woven(r, n), celled(r, n), r.fractal(n, 3, 2)], 1)
    share = torch.tensor([4.0, 2, 1, 1, 1])
    kind = torch.multinomial(share, n, replacement=True, generator=r.source)
    material = kinds[torch.arange(n), kind]
    angle = r.uniform(n, 0, 2 * math.pi)
    along = x * angle.cos() + y * angle.sin()
    grey = r.uniform(n, 0.15, 0.7) * (1 + r.uniform(n, 0.03, 0.3) * material)
    # Lighting: a slope, a broad bright band, faint clouds.
    grey = grey * (1 + 0.5 * r.uniform(n) * along)
    band = torch.exp(-((x - r.uniform(n, -1, 1)) / r.uniform(n, 0.15, 0.8)).square())
    grey = grey * (1 + r.uniform(n, 0, 1.2) * r.coin(n, 0.5) * band)
    grey = grey * (1 + 0.15 * r.uniform(n) * r.field(n, 3)) + texture(r, n)
    # A crooked outline, with a bright or dark lip.
    turn = 0.08 * r.normal(n, 1, 1)
    u, v = x + turn * y + 0.02 * r.field(n, 3), y - turn * x + 0.02 * r.field(n, 3)
    edge = torch.minimum(r.uniform(n, 0.8, 1.05) - u.abs(), r.uniform(n, 0.85, 1.1) - v.abs())
    ends = r.coin(n, 0.45)
    lip = torch.exp(-((edge - 0.03) / r.uniform(n, 0.01, 0.06)).square()) * ends
    grey = grey * (1 + r.uniform(n, -0.6, 0.8) * lip * r.coin(n, 0.5))
    inside = blend(torch.ones_like(grey), step(edge, 0.008), ends)
    ground = r.uniform(n, 0, 0.15)
    canvas = Canvas(blend(ground, grey.clamp(0, 1.1), inside), inside * step(edge + 0.02 * ends, 0.01))
    canvas.ground = ground
    canvas.tint = tint(r, n, 0.6)
    return canvas


def objects(r: Random, n: int) -> Canvas:
    """Return a thing on a light, dark or rough ground: rings, capsules, boxes, nuts, tablets.

    Parts and print.
    """
    x, y = r.x.expand(n, -1, -1), r.y.expand(n, -1, -1)
    angle = r.uniform(n, 0, math.pi) * r.coin(n, 0.6)
    dx, dy = x - r.uniform(n, -0.08, 0.08), y - r.uniform(n, -0.08, 0.08)
    u, v = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    size, slim = r.uniform(n, 0.6, 0.97), r.uniform(n, 0.35, 1)
    round_ = (u.square() + (v / slim).square()).sqrt()
    disc = (u.square() + v.square()).sqrt()
    polar = torch.atan2(v, u)
    teeth = r.pick(n, 6).view(n, 1, 1) + 3
    nut = disc * (1 + r.uniform(n, 0.03, 0.15) * torch.cos(teeth * polar))
    rod = ((u.abs() - size * (1 - slim * 0.8)).clamp_min(0).square() + v.square()).sqrt() / (slim * 0.8)
    forms = torch.stack([disc, round_, nut, rod, (u.abs() ** 6 + (v / slim).abs() ** 6) ** (1 / 6)], 1)
    form = forms[torch.arange(n), r.pick(n, 5)] / size + 0.02 * r.uniform(n) * r.field(n, 5)
    solid = step(1 - form, 0.012)
    # Inner structure that repeats around the centre: steps and shine rings.
    base = r.uniform(n, 0.1, 0.85)
    grey = base * torch.ones_like(form)
    for _ in range(3):
        inner = r.uniform(n, 0.15, 0.9)
        grey = blend(grey, r.uniform(n, 0.02, 0.9), step(inner - form, 0.02) * r.coin(n, 0.4))
        ring = torch.exp(-((form - inner) / r.uniform(n, 0.01, 0.06)).square())
        ring = ring * (1 + r.uniform(n) * torch.cos(polar * r.uniform(n, 1, 4) + r.uniform(n, 0, 6)))
        grey = grey + r.uniform(n, -0.3, 0.5) * ring * r.coin(n, 0.5)
    rough = blend(r.field(n, 50), r.fractal(n, 8, 3), r.coin(n, 0.5))
    grey = grey * (1 + 0.25 * r.uniform(n).square() * rough)
    bulge = (1 - form.square()).clamp_min(0).sqrt()
    grey = grey * blend(torch.ones_like(form), 0.55 + 0.5 * bulge, r.uniform(n))
    hole = step(r.uniform(n, 0.15, 0.4) - form, 0.015) * r.coin(n, 0.2)
    solid = solid * (1 - hole)
    # Ground: white, black or grey, with a soft shadow.
    ground = torch.where(r.coin(n, 0.5) > 0, r.uniform(n, 0.75, 1), r.uniform(n, 0, 0.4))
    floor = ground * (1 + 0.04 * r.uniform(n).square() * r.field(n, 40) + 0.1 * r.uniform(n) * x)
    floor = floor * (1 - r.uniform(n, 0, 0.4) * step(1.12 - form, 0.08))
    canvas = Canvas(blend(floor, grey.clamp(0, 1.1), solid), solid)
    canvas.ground = ground
    colour = tint(r, n, 0.35)
    two = step(u + r.uniform(n, -0.3, 0.3), 0.01) * r.coin(n, 0.35)
    colour = blend(colour, tint(r, n, 0.2), two[:, None])
    canvas.grey = blend(canvas.grey, canvas.grey * r.uniform(n, 0.3, 1.2), two * solid)
    canvas.tint = blend(torch.ones_like(colour), colour, solid[:, None])
    stamp = (u.abs() < r.uniform(n, 0.1, 0.4)) & (v.abs() < r.uniform(n, 0.04, 0.15))
    add_text(r, canvas, 0.3, margin=stamp * solid)
    canvas.inside = solid
    return canvas


def tint(r: Random, n: int, plain: float) -> Tensor:
    """Return a colour per image (N, 3, S, S), grey with chance ``plain``."""
    colour = torch.stack([r.uniform(n, 0.3, 1) for _ in range(3)], 1)
    colour = colour / colour.amax(1, keepdim=True)
    colour = blend(torch.ones_like(colour), colour, r.uniform(n).unsqueeze(1))
    return blend(colour, torch.ones_like(colour), r.coin(n, plain).unsqueeze(1)).expand(n, 3, r.size, r.size)


def rolled(r: Random, n: int) -> Tensor:
    """Fine lines along one direction, in bundles; a little grain: (N, S, S) of about unit variance."""
    lines = r.field(n, (3, r.size // 2)) * r.uniform(n) + r.field(n, (6, r.size // 4)) * r.uniform(n)
    lines = lines + r.field(n, (2, 24)) * r.uniform(n) + r.field(n, (14, r.size // 2)) * r.uniform(n)
    lines = torch.where(r.coin(n, 0.3) > 0, lines.transpose(1, 2), lines)
    bent = sample(lines, r.x + 0.1 * r.normal(n, 1, 1) * r.y, r.y.expand(n, -1, -1))
    return 0.8 * bent + 0.4 * r.uniform(n) * r.field(n, r.size // 2)


def grained(r: Random, n: int) -> Tensor:
    """Leather, stone, sheet metal: grain of one size, valleys between: (N, S, S)."""
    cells = int(r.pick(1, 40)) + 10
    grain = blend(r.field(n, cells), -1.5 * r.field(n, cells).abs() + 1.2, r.coin(n, 0.5))
    return grain + 0.5 * r.uniform(n) * r.fractal(n, 4, 3)


def woven(r: Random, n: int) -> Tensor:
    """Cloth, mesh, ribbed plastic: two crossing waves, slightly warped: (N, S, S)."""
    angle = r.uniform(n, 0, math.pi) * r.coin(n, 0.5)
    x, y = r.x + 0.01 * r.field(n, 6), r.y + 0.01 * r.field(n, 6)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    pitch = r.uniform(n, 15, 90)
    wave = torch.sin(along * pitch) + r.coin(n, 0.6) * torch.sin(across * pitch * r.uniform(n, 0.7, 1.4))
    return wave * r.uniform(n, 0.5, 1.5) + 0.3 * r.field(n, 60)


def celled(r: Random, n: int) -> Tensor:
    """Wood rings, planks or a wall of tiles: (N, S, S)."""
    x, y = r.x.expand(n, -1, -1), r.y.expand(n, -1, -1)
    wood = torch.sin(r.uniform(n, 8, 40) * (x + 0.3 * r.field(n, (2, 3))) + 2 * r.field(n, (2, 10)))
    pitch = r.uniform(n, 3, 9)
    joints = torch.maximum((x * pitch).cos(), (y * pitch * r.uniform(n, 0.5, 1.5)).cos())
    tiles = 0.5 - 3 * step(joints - 0.985, 0.004) + 0.3 * r.fractal(n, 10, 2)
    return torch.where(r.coin(n, 0.6) > 0, wood, tiles)
