"""Ultrasound: layers, strands and glands under speckle; interfaces with shadows; nodules and cysts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from synthetic.canvas import Canvas, blend, blob, box, make_frame, sample, sample_at, step
from synthetic.fields import Random
from synthetic.lesions import lesion_shape
from synthetic.overlays import add_text, draw


def ultrasound(r: Random, n: int) -> Canvas:
    """Skin and muscle layers over a gland, vessels, interfaces; a box or a fan in a black screen."""
    x, y = r.x.expand(n, -1, -1), r.y.expand(n, -1, -1)
    window, top = screen(r, n)
    depth = y + 0.12 * r.uniform(n) * r.field(n, 2) + 0.12 * r.uniform(n, -1, 1) * x
    rows = F.interpolate(r.normal(n, 1, 16, 3), (r.size, r.size), mode="bicubic")[:, 0]
    layers = sample(rows, x, depth.clamp(-1, 1))
    shallow = step(r.uniform(n, -0.9, 0.3) - depth, 0.15)  # layered near the skin, more even below
    grey = r.uniform(n, 0.22, 0.5) + 0.15 * r.uniform(n, 0.3, 1.2) * layers * (0.25 + 0.75 * shallow)
    grey = grey + 0.1 * r.uniform(n) * r.fractal(n, 3, 2)
    strands = step(r.field(n, (44, 5)) - r.uniform(n, 0.9, 1.6), 0.25) * (0.3 + 0.7 * shallow)
    grey = grey + r.uniform(n, 0, 0.4) * strands
    # A gland: even and bordered by a bright line.
    gland = blob(
        r,
        n,
        make_frame(r, n, symmetric=0, cropped=0.5, tilt=0.3),
        u=(-0.5, 0.5),
        v=(-0.2, 0.4),
        size=(0.3, 0.9),
        twin=False,
        soft=0.04,
    )
    has = r.coin(n, 0.65)
    even = r.uniform(n, 0.3, 0.55) + 0.04 * r.field(n, 5) + 0.05 * r.uniform(n) * r.field(n, 30)
    grey = blend(grey, even, 0.9 * gland * has)
    border = (4 * gland * (1 - gland)).square() * has
    grey = grey + r.uniform(n, -0.1, 0.2) * border
    # Vessels: small, dark, round or long.
    for _ in range(2):
        a, b = r.uniform(n, 0.03, 0.09), r.uniform(n, 1, 4)
        dx, dy = x - r.uniform(n, -0.9, 0.9), depth - r.uniform(n, -0.4, 0.9)
        dark = step(a - ((dx / b).square() + dy.square()).sqrt() + 0.02 * r.field(n, 6), 0.015)
        grey = blend(grey, r.uniform(n, 0.02, 0.12), dark * r.coin(n, 0.3))
    # An interface that shines and shadows: bone, air.
    x0, y0 = r.uniform(n, -1, 1), r.uniform(n, -0.3, 0.8)
    below = depth - y0 - r.uniform(n, -0.8, 1.2) * (x - x0).square() + 0.03 * r.field(n, 4)
    beam = step(r.uniform(n, 0.1, 0.7) - (x - x0).abs(), 0.05) * r.coin(n, 0.45)
    grey = grey + r.uniform(n, 0.1, 0.6) * torch.exp(-(below / 0.035).square()) * beam
    grey = grey * (1 - r.uniform(n, 0.3, 0.95) * step(below - 0.03, 0.05) * beam)
    shadow = step(F.interpolate(r.normal(n, 1, 1, 12), (1, r.size), mode="bicubic")[:, 0] - 1.2, 0.2)
    grey = grey * (1 - 0.6 * shadow * step(y - r.uniform(n, -0.5, 0.8), 0.1) * r.coin(n, 0.4))
    fade = torch.exp(-r.uniform(n, 0, 1.6) * (y - r.uniform(n, -0.8, 0.8)).clamp_min(0))
    inside = window * step(y - top - 0.12, 0.03) * step(fade - 0.35, 0.1)
    canvas = Canvas((grey * fade).clamp(0, 1), inside)
    return on_screen(r, canvas, window)


def screen(r: Random, n: int) -> tuple[Tensor, Tensor]:
    """Return the picture's place on the screen (N, S, S), and the height (N, 1, 1) of its upper edge."""
    tight = r.coin(n, 0.45)
    left, right, up, down = (r.uniform(n, 0, 0.4) * (1 - tight) * r.coin(n, 0.7) for _ in range(4))
    box = (r.x > left - 1) & (r.x < 1 - right) & (r.y > up * 0.5 - 1) & (r.y < 1 - down * 0.6)
    apex = r.uniform(n, 0.4, 2.0)
    angle = torch.atan2(r.x, r.y + 1 + apex)
    radius = (r.x.square() + (r.y + 1 + apex).square()).sqrt()
    fan = (angle.abs() < r.uniform(n, 0.35, 0.75)) & (radius > apex + 0.05) & (radius < apex + 1.95)
    window = torch.where(r.coin(n, 0.3) > 0, fan, box).float()
    return window, up * 0.5 - 1


def on_screen(r: Random, canvas: Canvas, window: Tensor) -> Canvas:
    """Return the canvas in its place on a black screen with marks."""
    canvas.view = window
    draw(canvas, torch.zeros(len(window), 3, 1, 1), 1 - window)
    canvas.view = window
    screen_marks(r, canvas, window)
    return canvas


def screen_marks(r: Random, canvas: Canvas, window: Tensor) -> None:
    """Text and a grey scale beside the picture, little crosses inside it."""
    n = len(window)
    outside = 1 - F.max_pool2d(window[:, None], 5, 1, 2)[:, 0]
    beside = (r.x.abs() > 0.6) & ((r.y - r.uniform(n, -0.9, 0.9)).abs() < r.uniform(n, 0.05, 0.6))
    add_text(r, canvas, 0.7, margin=outside * beside)
    x0 = r.uniform(n, 0.85, 0.97) * (1 - 2 * r.coin(n, 0.5))
    bar = ((r.x - x0).abs() < 0.02) & (r.y.abs() < r.uniform(n, 0.1, 0.4))
    ramp = (0.5 - r.y).clamp(0, 1).expand(n, 3, -1, -1)
    draw(canvas, ramp, bar.float() * outside * r.coin(n, 0.5))
    cx, cy = r.uniform(n, -0.8, 0.8), r.uniform(n, -0.8, 0.8)
    dx, dy = (r.x - cx).abs(), (r.y - cy).abs()
    cross = ((dx < 0.008) & (dy < 0.03)) | ((dy < 0.008) & (dx < 0.03))
    kept = canvas.view
    draw(canvas, torch.ones(n, 3, 1, 1), cross.float() * window * r.coin(n, 0.1))
    canvas.view = kept


def add_nodule(r: Random, canvas: Canvas, active: Tensor) -> Tensor:
    """Return a nodule in each image with ``active`` 1: dark, even or mixed, with halo, cysts, calcifications.

    Changes ``canvas``; returns the mask (N, S, S).
    """
    n = len(canvas.grey)
    core = step(canvas.inside - 0.5, 0.1)
    radius = 0.08 * 6.0 ** r.uniform(n)
    depth, centre = lesion_shape(r, n, core, radius, rough=0.8, lying=0.7)
    soft = torch.maximum(r.uniform(n, 0.02, 0.2), 0.6 / (radius * r.size))
    alpha = torch.sigmoid(2 * depth / soft) * core * active
    local = sample_at(box(canvas.grey, 4), centre).clamp_min(0.12)
    kind = r.pick(n, 10).view(n, 1, 1)
    factor = torch.where(kind < 5, r.uniform(n, 0.3, 0.75), r.uniform(n, 0.85, 1.15))  # dark, alike
    factor = torch.where(kind == 5, r.uniform(n, 0.02, 0.2), factor)  # a cyst
    factor = torch.where(kind == 6, r.uniform(n, 1.25, 1.8), factor)  # bright
    alike = (kind > 6).float()
    own = 1 + r.uniform(n, 0, 0.25) * r.fractal(n, 8, 2)
    value = blend(local * factor * own, canvas.grey * factor, r.uniform(n, 0, 0.5))
    # What is like its surroundings shows by its rim and by what is inside.
    halo = torch.exp(-((depth - 0.06) / r.uniform(n, 0.05, 0.12)).square())
    halo = halo * torch.maximum(r.coin(n, 0.25), alike) * active
    holes = step(r.field(n, 9) - r.uniform(n, 0.3, 1.2), 0.15) * torch.maximum(alike * 0.9, r.coin(n, 0.25))
    value = value * (1 - r.uniform(n, 0.5, 0.95) * holes)
    spots = step(r.field(n, 44) - 2.2, 0.1) * r.coin(n, 0.25)
    value = value + 0.6 * spots
    canvas.grey = blend(canvas.grey, value, alpha)
    canvas.grey = canvas.grey * (1 - r.uniform(n, 0.2, 0.8) * halo * core)
    # Behind a cyst it is brighter, behind calcium darker; that is no lesion itself.
    cx, cy = sample_at(r.x.expand(n, -1, -1), centre), sample_at(r.y.expand(n, -1, -1), centre)
    behind = step(0.8 * radius - (r.x - cx).abs(), 0.03) * step(r.y - cy - radius, 0.05) * active
    gain = torch.where(kind == 5, r.uniform(n, 0.1, 0.6), -r.uniform(n, 0, 0.6) * r.coin(n, 0.3))
    canvas.grey = (canvas.grey * (1 + gain * behind * canvas.inside)).clamp(0, 1)
    return ((alpha > 0.5) | ((halo > 0.5) & (depth > 0) & (core > 0.5))).float()
