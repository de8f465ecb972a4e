"""Procedurally made images with and without lesions: what medzsad-mini is trained on.

Everything is vectorised over the batch, in torch, on the CPU. A batch is a mix of looks (brain slices, other
body slices, endoscopy, ultrasound, textures and objects, abstract tissue maps, and real normal slices where
given); each look makes clean images, into half of which lesions are pasted; then come acquisition effects
(bias, blur, noise, gamma, window).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOOKS = ("brain", "abstract", "body", "endoscopy", "ultrasound", "texture", "real")
SHARES = (0.40, 0.14, 0.08, 0.12, 0.10, 0.06, 0.10)


class Batch(NamedTuple):
    """One generated batch.

    Attributes:
        images: float32 (B, 3, S, S) in [0, 1].
        masks: float32 (B, S, S), 1 inside a lesion.
        labels: int64 (B,), 1 for an image with a lesion: 1 exactly where the mask has a pixel.
    """

    images: Tensor
    masks: Tensor
    labels: Tensor


@dataclass
class Canvas:
    """Clean images under way.

    Attributes:
        grey: (N, S, S), about [0, 1].
        inside: (N, S, S) in [0, 1], where lesions may be.
        tint: (N, 3, S, S) factors of the colour channels, or None.
    """

    grey: Tensor
    inside: Tensor
    tint: Tensor | None = None


class Random:
    """Per-image random numbers from one seeded generator."""

    def __init__(self, seed: int, size: int) -> None:
        self.source = torch.Generator().manual_seed(seed)
        self.size = size
        line = torch.linspace(-1, 1, size)
        self.y, self.x = torch.meshgrid(line, line, indexing="ij")

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers (N, 1, 1)."""
        return low + (high - low) * torch.rand(count, 1, 1, generator=self.source)

    def coin(self, count: int, chance: float) -> Tensor:
        """1.0 with probability ``chance``, else 0.0: (N, 1, 1)."""
        return (torch.rand(count, 1, 1, generator=self.source) < chance).float()

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.source)

    def field(self, count: int, cells: int, size: int | None = None) -> Tensor:
        """Smooth noise (N, S, S) of about unit variance with ``cells`` bumps along a side."""
        size = size or self.size
        if cells >= size:
            return self.normal(count, size, size)
        low = self.normal(count, cells + 4, cells + 4)
        rows, columns = (
            spline_matrix(cells, size, float(torch.rand((), generator=self.source))) for _ in range(2)
        )
        return 2.09 * (rows @ low @ columns.T)

    def fractal(self, count: int, cells: int, octaves: int = 3, decay: float = 0.55) -> Tensor:
        """Sum of noise fields, each twice as fine and ``decay`` as strong as the last: (N, S, S)."""
        total, power = torch.zeros(count, self.size, self.size), 0.0
        for octave in range(octaves):
            weight = decay**octave
            total = total + weight * self.field(count, cells * 2**octave)
            power += weight**2
        return total / math.sqrt(power)

    def pick(self, count: int, choices: int) -> Tensor:
        """Random integers below ``choices``: int64 (N,)."""
        return torch.randint(choices, (count,), generator=self.source)


def spline_matrix(cells: int, size: int, offset: float) -> Tensor:
    """Cubic B-spline weights (S, cells + 4): ``size`` points read off knots shifted by ``offset``."""
    position = torch.linspace(0, cells, size).view(-1, 1) + offset + 1
    distance = (position - torch.arange(cells + 4)).abs()
    near = 2 / 3 - distance.square() + distance**3 / 2
    far = (2 - distance).clamp_min(0) ** 3 / 6
    return torch.where(distance < 1, near, far)


def step(x: Tensor, softness: float | Tensor = 0.03) -> Tensor:
    """A soft step from 0 (x < 0) to 1 (x > 0)."""
    return torch.sigmoid(x / softness)


def blend(base: Tensor, value: Tensor, alpha: Tensor) -> Tensor:
    """``value`` over ``base`` with opacity ``alpha``."""
    return base + (value - base) * alpha


def sample(fields: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Reads fields (N, S, S) at coordinates u, v (N, S, S) in [-1, 1]."""
    grid = torch.stack([u, v], -1)
    return F.grid_sample(fields[:, None], grid, padding_mode="reflection", align_corners=True)[:, 0]


class Frame(NamedTuple):
    """Body coordinates (N, S, S): the body is the unit disc in u, v; w is for fields: |u| if symmetric."""

    u: Tensor
    v: Tensor
    w: Tensor


def make_frame(r: Random, n: int, *, symmetric: float, cropped: float, tilt: float) -> Frame:
    """Random placement of a body in the image.

    Args:
        r: the random numbers.
        n: images.
        symmetric: chance of left-right symmetry.
        cropped: chance that the body touches the image's border (as after cropping to the foreground).
        tilt: largest rotation in radians.
    """
    is_cropped = r.coin(n, cropped)
    scale = blend(r.uniform(n, 1.05, 1.55), r.uniform(n, 0.96, 1.06), is_cropped)
    stretch = r.uniform(n, 0.8, 1.0) ** r.coin(n, 0.8)
    tall = r.coin(n, 0.65)
    angle = r.uniform(n, -1, 1) * tilt * r.uniform(n)
    shift_x, shift_y = (r.uniform(n, -0.12, 0.12) * (1.1 - is_cropped) for _ in range(2))
    x = (r.x - shift_x) * scale
    y = (r.y - shift_y) * scale
    u = x * angle.cos() + y * angle.sin()
    v = y * angle.cos() - x * angle.sin()
    u, v = (
        u / blend(torch.ones_like(stretch), stretch, tall),
        v / blend(stretch, torch.ones_like(stretch), tall),
    )
    # No body is exactly symmetric: a gentle warp.
    u = u + 0.03 * r.uniform(n) * r.field(n, 3)
    v = v + 0.03 * r.uniform(n) * r.field(n, 3)
    w = blend(u, 2 * u.abs() - 1, r.coin(n, symmetric))
    return Frame(u, v, w)


def tissue_map(r: Random, n: int, frame: Frame, kinds: int, cells: int, sharp: float = 9.0) -> Tensor:
    """Soft tissue labels (N, kinds, S, S): softmax over noise in body coordinates plus a concentric prior."""
    radius = (frame.u.square() + frame.v.square()).sqrt()
    out = []
    for _ in range(kinds):
        noise = sample(r.fractal(n, cells, 3), frame.w, frame.v)
        ring = -((radius - r.uniform(n, 0, 1.1)) / r.uniform(n, 0.15, 0.6)).square()
        out.append(noise + 0.8 * ring)
    return (sharp * torch.stack(out, 1)).softmax(1)


def blob(
    r: Random,
    n: int,
    frame: Frame,
    *,
    u: tuple[float, float],
    v: tuple[float, float],
    size: tuple[float, float],
    twin: bool,
    soft: float = 0.12,
) -> Tensor:
    """Opacity (N, S, S) of one wobbly ellipse per image; ``twin`` mirrors it across the middle line."""
    across = frame.u.abs() if twin else frame.u
    angle = r.uniform(n, -1.2, 1.2)
    a, b = r.uniform(n, *size), r.uniform(n, *size)
    du, dv = across - r.uniform(n, *u), frame.v - r.uniform(n, *v)
    p, q = (du * angle.cos() + dv * angle.sin()) / a, (dv * angle.cos() - du * angle.sin()) / b
    wobble = 0.15 * sample(r.field(n, 6), frame.w, frame.v)
    return step(1 - (p.square() + q.square()).sqrt() + wobble, soft)


def texture(r: Random, n: int, strength: float = 1.0) -> Tensor:
    """Fine noise (N, S, S) of random grain and strength (up to 0.06)."""
    fine = r.field(n, r.size // 2)
    coarse = r.fractal(n, int(r.pick(1, 12)) + 8, 2)
    return strength * (0.04 * r.uniform(n).square() * fine + 0.05 * r.uniform(n) * coarse)


def brain(r: Random, n: int) -> Canvas:
    """Slices of a head: MR of many contrasts, with or without skull, and CT; mostly symmetric."""
    frame = make_frame(r, n, symmetric=0.8, cropped=0.7, tilt=0.3)
    u, v, w = frame
    outline = 0.05 * r.uniform(n) * sample(r.field(n, 5), w, v)
    radius = (u.square() + v.square()).sqrt() + outline
    head = r.coin(n, 0.5)  # else skull-stripped
    is_ct = head * r.coin(n, 0.35)
    brain_radius = 1 - head * r.uniform(n, 0.1, 0.3)
    rad = radius / brain_radius
    # Grey values per tissue; the order of white matter, grey matter and fluid tells T1 from T2 and FLAIR.
    order = r.pick(n, 5).view(n, 1, 1)
    white = torch.where(order <= 1, r.uniform(n, 0.5, 0.75), r.uniform(n, 0.3, 0.55))
    step_grey = r.uniform(n, 0.03, 0.2)
    gray = torch.where(order <= 1, white - step_grey, white + step_grey)
    fluid = torch.where(order == 4, r.uniform(n, 0.75, 1.0), r.uniform(n, 0.0, 0.25))
    white, gray = (
        blend(t, 0.42 + 0.08 * d * torch.sign(gray - white).abs(), is_ct)
        for t, d in ((white, -0.5), (gray, 0.5))
    )
    fluid = blend(fluid, r.uniform(n, 0.2, 0.34), is_ct)
    # Grey ribbon with folds, deep grey nuclei, sulci.
    folds = sample(r.fractal(n, 9, 2), w, v)
    ribbon = step(rad - r.uniform(n, 0.72, 0.9) + r.uniform(n, 0.05, 0.18) * folds, 0.04)
    grey = blend(white, gray, ribbon)
    large = sample(r.field(n, 4), w, v)
    grey = grey + 0.05 * r.uniform(n) * large
    for _ in range(2):
        nuclei = blob(r, n, frame, u=(0.12, 0.4), v=(-0.3, 0.3), size=(0.06, 0.2), twin=True)
        grey = blend(grey, gray, nuclei * r.coin(n, 0.5) * r.uniform(n, 0.3, 1))
    ridge = 1 - sample(r.field(n, 11), w, v).abs() / r.uniform(n, 0.08, 0.3)
    sulci = (
        step(ridge, 0.25) * step(rad - r.uniform(n, 0.55, 0.85), 0.06) * r.uniform(n, 0.2, 1) * r.coin(n, 0.8)
    )
    grey = blend(grey, fluid, sulci)
    fissure = step(r.uniform(n, 0.005, 0.03) - u.abs() + 0.01 * folds, 0.015) * step(
        rad - r.uniform(n, 0, 0.6), 0.1
    )
    grey = blend(grey, fluid, fissure * r.coin(n, 0.7))
    # Ventricles: one mirrored pair in up to two parts, and a middle cavity.
    has = r.coin(n, 0.7)
    for position in ((-0.35, 0.0), (0.0, 0.4)):
        horns = blob(r, n, frame, u=(0.05, 0.22), v=position, size=(0.03, 0.2), twin=True)
        grey = blend(grey, fluid, horns * has * r.coin(n, 0.8))
    middle = blob(r, n, frame, u=(-0.02, 0.02), v=(-0.2, 0.3), size=(0.02, 0.1), twin=False)
    grey = blend(grey, fluid, middle * r.coin(n, 0.35))
    # Normal things that shine or stay dark in pairs: choroid plexus, vessels, enhancing sinuses, eyes.
    for chance, size in ((0.35, (0.03, 0.1)), (0.25, (0.06, 0.25))):
        pair = blob(r, n, frame, u=(0.1, 0.7), v=(-0.8, 0.8), size=size, twin=True)
        grey = blend(grey, r.uniform(n), pair * r.coin(n, chance) * r.uniform(n, 0.3, 1))
    grey = grey + texture(r, n)
    vessel = step(0.02 + 0.02 * r.uniform(n) - sample(r.field(n, 4), w, v).abs(), 0.01)
    grey = blend(grey, r.uniform(n, 0.6, 1), vessel * r.coin(n, 0.15) * r.uniform(n, 0.2, 0.7))
    # Rim: fluid, skull (dark in MR, white in CT), scalp.
    skull_inner, skull_outer = brain_radius * r.uniform(n, 1.0, 1.06), brain_radius + (1 - brain_radius) * 0.7
    grey = blend(grey, fluid, step(rad - r.uniform(n, 0.96, 1.05), 0.02))
    bone = blend(r.uniform(n, 0, 0.25), r.uniform(n, 0.85, 1.0), is_ct)
    grey = blend(grey, bone, head * step(radius - skull_inner, 0.015))
    scalp = blend(r.uniform(n, 0.3, 1.0), r.uniform(n, 0.2, 0.4), is_ct)
    grey = blend(grey, scalp * (1 + 0.2 * folds), head * step(radius - skull_outer, 0.015))
    # Stripped volumes often keep a bright or dark edge.
    edge = (1 - head) * step(rad - r.uniform(n, 0.93, 0.99), 0.02) * r.coin(n, 0.5)
    grey = blend(grey, r.uniform(n, 0, 0.9), edge * r.uniform(n, 0.3, 1))
    body = step(1 - radius, 0.008)
    grey = grey * body
    return Canvas(grey, step(0.97 - rad, 0.01) * body)


def abstract(r: Random, n: int) -> Canvas:
    """Random tissue maps with or without outline: no anatomy in particular."""
    frame = make_frame(r, n, symmetric=0.6, cropped=0.5, tilt=0.4)
    kinds = 6
    labels = tissue_map(r, n, frame, kinds, int(r.pick(1, 3)) + 2)
    values = torch.rand(n, kinds, 1, 1, generator=r.source) * 0.8 + 0.1
    middle = values.mean(1, keepdim=True)
    values = middle + (values - middle) * r.uniform(n, 0.15, 1).unsqueeze(1)
    grey = (labels * values).sum(1) + texture(r, n)
    radius = (frame.u.square() + frame.v.square()).sqrt()
    radius = radius + 0.08 * r.uniform(n) * sample(r.field(n, 5), frame.w, frame.v)
    outlined = r.coin(n, 0.75)
    rim = r.coin(n, 0.4) * step(radius - r.uniform(n, 0.8, 0.95), 0.02)
    grey = blend(grey, r.uniform(n, 0.0, 1.0), rim)
    inside = blend(torch.ones_like(grey), step(1 - radius, 0.01), outlined)
    return Canvas(grey * inside, inside * (1 - rim))


def body(r: Random, n: int) -> Canvas:
    """Torso-like slices: fat, muscle, organs, air, spine and ribs."""
    frame = make_frame(r, n, symmetric=0.5, cropped=0.5, tilt=0.15)
    u, v, w = frame
    radius = (u.abs() ** 2.4 + v.abs() ** 2.4) ** (1 / 2.4) + 0.04 * sample(r.field(n, 5), w, v)
    fat, muscle, bone = r.uniform(n, 0.1, 0.8), r.uniform(n, 0.3, 0.6), r.uniform(n, 0.7, 1)
    wall = r.uniform(n, 0.7, 0.92)
    grey = blend(fat, muscle, step(wall - radius, 0.02))
    grey = blend(grey, fat, step(wall - 0.12 - radius, 0.02) * r.coin(n, 0.7))
    for _ in range(6):
        organ = blob(r, n, frame, u=(-0.6, 0.6), v=(-0.5, 0.5), size=(0.1, 0.4), twin=False)
        value = muscle + r.uniform(n, -0.15, 0.2)
        grey = blend(grey, value, organ * step(wall - 0.1 - radius, 0.02) * r.coin(n, 0.8))
    lungs = blob(r, n, frame, u=(0.3, 0.5), v=(-0.2, 0.2), size=(0.25, 0.45), twin=True, soft=0.05)
    grey = blend(grey, r.uniform(n, 0, 0.12), lungs * r.coin(n, 0.35))
    air = blob(r, n, frame, u=(-0.5, 0.5), v=(-0.6, 0.3), size=(0.05, 0.2), twin=False, soft=0.06)
    grey = blend(grey, r.uniform(n, 0, 0.1), air * r.coin(n, 0.4))
    spine = blob(r, n, frame, u=(-0.03, 0.03), v=(0.4, 0.65), size=(0.1, 0.18), twin=False, soft=0.08)
    grey = blend(grey, bone, spine * r.coin(n, 0.8))
    ribs = step(0.03 - (radius - wall + 0.06).abs(), 0.01) * (sample(r.field(n, 7), w, v) > 0.4)
    grey = blend(grey, bone, ribs * r.coin(n, 0.6))
    grey = grey + texture(r, n)
    outline = step(1 - radius, 0.01)
    return Canvas(grey * outline, step(wall - radius, 0.02) * (grey > 0.14))


def endoscopy(r: Random, n: int) -> Canvas:
    """Mucosa: pink to orange, folds, vessels, a dark lumen, dark corners."""
    x, y = r.x.expand(n, -1, -1), r.y.expand(n, -1, -1)
    cx, cy = r.uniform(n, -0.7, 0.7), r.uniform(n, -0.7, 0.7)
    distance = ((x - cx).square() + (y - cy).square()).sqrt()
    shade = 0.3 + 0.5 * torch.tanh(distance * r.uniform(n, 0.7, 2.5))
    rings = torch.sin(distance * r.uniform(n, 6, 18) + 1.6 * r.field(n, 3))
    grey = shade + 0.1 * r.uniform(n) * rings.clamp_min(0) + 0.1 * r.uniform(n) * r.fractal(n, 3, 3)
    lumen = step(r.uniform(n, 0.05, 0.4) - distance + 0.1 * r.field(n, 4), 0.08) * r.coin(n, 0.6)
    grey = blend(grey, 0.25 * grey, lumen * r.uniform(n, 0.5, 1))
    vessels = step(0.06 - r.fractal(n, 6, 2).abs(), 0.03) * r.uniform(n, 0, 0.12) * r.coin(n, 0.6)
    light = 1 - r.uniform(n, 0, 0.5) * (
        (x - r.uniform(n, -0.4, 0.4)).square() + (y - r.uniform(n, -0.4, 0.4)).square()
    )
    grey = (grey - vessels + texture(r, n, 0.6)) * light.clamp_min(0.1)
    tint = torch.stack(
        [
            torch.ones(n, 1, 1),
            r.uniform(n, 0.35, 0.8),
            r.uniform(n, 0.2, 0.75),
        ],
        1,
    ) * (1 + 0.06 * torch.stack([r.field(n, 3) for _ in range(3)], 1))
    tint = blend(tint, tint.mean(1, keepdim=True), r.coin(n, 0.15).unsqueeze(1))
    corner = r.uniform(n, 0.95, 1.5)
    shape = torch.where(
        r.coin(n, 0.5) > 0,
        x.square().add(y.square()).sqrt() / 1.05,
        torch.maximum(torch.maximum(x.abs(), y.abs()), (x.abs() + y.abs()) * 0.68),
    )
    view = step(corner - shape, 0.01)
    panel = r.coin(n, 0.2) * (x < -0.55) * (y > 0.3)  # the little picture of the instrument's position
    view = view * (1 - panel)
    return Canvas(grey * view, view * (1 - 0.8 * lumen) * step(grey - 0.12, 0.02), tint)


def ultrasound(r: Random, n: int) -> Canvas:
    """Layered speckle: horizontal tissue layers, bright interfaces, shadows; sometimes a fan-shaped view."""
    x, y = r.x.expand(n, -1, -1), r.y.expand(n, -1, -1)
    depth = y + 0.15 * r.uniform(n) * r.field(n, 2) + 0.1 * r.uniform(n) * x
    coarse = F.interpolate(r.normal(n, 1, 9, 3), (r.size, r.size), mode="bicubic")[:, 0]
    layers = sample(coarse, x, depth.clamp(-1, 1))
    grey = 0.35 + 0.16 * r.uniform(n, 0.3, 1.2) * layers + 0.1 * r.fractal(n, 3, 2)
    lines = step(layers.abs().neg() + 0.05, 0.03) * r.uniform(n, 0, 0.4) * r.coin(n, 0.7)
    grey = grey + lines
    for _ in range(2):
        dark = step(
            r.uniform(n, 0.06, 0.22)
            - (
                (x - r.uniform(n, -0.9, 0.9)).square() + 1.6 * (depth - r.uniform(n, 0.2, 0.9)).square()
            ).sqrt()
            + 0.04 * r.field(n, 6),
            0.03,
        )
        grey = blend(grey, r.uniform(n, 0.02, 0.15), dark * r.coin(n, 0.3))
    shadow = step(F.interpolate(r.normal(n, 1, 1, 12), (1, r.size), mode="bicubic")[:, 0] - 1.2, 0.2)
    grey = grey * (1 - 0.6 * shadow * step(y - r.uniform(n, -0.5, 0.8), 0.1) * r.coin(n, 0.5))
    grey = grey * (1 - 0.45 * r.uniform(n) * (y + 1) / 2)
    angle = torch.atan2(x, y + r.uniform(n, 1.3, 2.5))
    fan = step(r.uniform(n, 0.35, 0.7) - angle.abs(), 0.01)
    inside = blend(torch.ones_like(grey), fan, r.coin(n, 0.3))
    border = step(0.97 - r.uniform(n, 0, 0.25) * r.coin(n, 0.4) - torch.maximum(x.abs(), y.abs()), 0.005)
    inside = inside * border
    return Canvas(grey.clamp(0, 1) * inside, inside * step(y + 0.8, 0.05))


def textures(r: Random, n: int) -> Canvas:
    """Manufactured surfaces and objects: flat, noisy, striped, woven; sometimes cut out on a plain ground."""
    x, y = r.x.expand(n, -1, -1), r.y.expand(n, -1, -1)
    angle = r.uniform(n, 0, math.pi)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    weave = torch.sin(along * r.uniform(n, 10, 60)) + r.coin(n, 0.5) * torch.sin(
        across * r.uniform(n, 10, 60)
    )
    grey = r.uniform(n, 0.2, 0.8) + 0.12 * r.uniform(n) * weave * r.coin(n, 0.5)
    grey = (
        grey
        + 0.1 * r.uniform(n) * r.fractal(n, int(r.pick(1, 20)) + 4, 3)
        + 0.15 * r.uniform(n, -1, 1) * along
    )
    frame = make_frame(r, n, symmetric=0.9, cropped=0.4, tilt=0.5)
    radius = (frame.u.square() + frame.v.square()).sqrt() + 0.1 * sample(r.field(n, 3), frame.w, frame.v)
    ring = 0.2 * r.uniform(n) * torch.sin(radius * r.uniform(n, 3, 20)) * r.coin(n, 0.4)
    is_object = r.coin(n, 0.5)
    inside = blend(torch.ones_like(grey), step(1 - radius, 0.01), is_object)
    grey = grey + ring * is_object + texture(r, n)
    grey = blend(r.uniform(n) * r.coin(n, 0.6) * torch.ones_like(grey), grey, inside)
    tint = torch.stack([r.uniform(n, 0.6, 1) for _ in range(3)], 1) * torch.ones(n, 3, r.size, r.size)
    tint = blend(tint, torch.ones_like(tint), r.coin(n, 0.5).unsqueeze(1))
    return Canvas(grey, inside, tint)


def real(r: Random, n: int, slices: Tensor) -> Canvas:
    """Crops, turns and stretches of real normal slices (M, S0, S0) in [0, 1]."""
    chosen = slices[r.pick(n, len(slices))].float() / 255
    angle = (r.uniform(n, -1, 1) * 0.3).flatten()
    turn = (r.pick(n, 4).float() * (math.pi / 2)) * r.coin(n, 0.15).flatten()
    angle = angle + turn
    zoom = r.uniform(n, 0.65, 1.15).flatten()
    stretch = r.uniform(n, 0.88, 1.12).flatten()
    flip = 1 - 2 * r.coin(n, 0.5).flatten()
    shift = 0.15 * r.normal(n, 2)
    row_1 = torch.stack([flip * zoom * stretch * angle.cos(), -zoom * angle.sin(), shift[:, 0]], 1)
    row_2 = torch.stack([flip * zoom * stretch * angle.sin(), zoom * angle.cos(), shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([row_1, row_2], 1), [n, 1, r.size, r.size], align_corners=False)
    grid = grid + 0.03 * torch.stack([r.field(n, 3), r.field(n, 3)], -1)
    grey = F.grid_sample(chosen[:, None], grid, align_corners=False)[:, 0].clamp(0, 1)
    inside = step(F.avg_pool2d(grey[:, None], 7, 1, 3)[:, 0] - 0.12, 0.02)
    return Canvas(grey, inside)


def lesion_shape(r: Random, n: int, where: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of every pixel from a lesion's border, in lesion radii, negative outside.

    Args:
        r: the random numbers.
        n: images.
        where: (N, S, S) weights of the places that the centre may take.
        radius: (N, 1, 1) in half-widths of the image.

    Returns:
        The signed depth (N, S, S), 1 at the centre, and the index of the centre pixel (N,).
    """
    coarse = where[:, 2::4, 2::4]
    place = torch.multinomial(coarse.flatten(1) + 1e-6, 1, generator=r.source)[:, 0]
    width = coarse.shape[-1]
    centre = (place // width * 4 + 2) * r.size + place % width * 4 + 2
    cy, cx = r.y.flatten()[centre].view(n, 1, 1), r.x.flatten()[centre].view(n, 1, 1)
    angle = r.uniform(n, 0, math.pi)
    aspect = 1 + r.uniform(n, 0, 0.9) * r.coin(n, 0.7)
    dx, dy = r.x - cx, r.y - cy
    p = (dx * angle.cos() + dy * angle.sin()) * aspect.sqrt()
    q = (dy * angle.cos() - dx * angle.sin()) / aspect.sqrt()
    # Border noise at the lesion's own scale: lobes for all, fringes for some.
    lobes = r.field(n, 5)
    grid_x, grid_y = (dx / (3 * radius)).clamp(-1, 1), (dy / (3 * radius)).clamp(-1, 1)
    lobes = sample(lobes, grid_x, grid_y)
    fringe = sample(r.field(n, 12), grid_x, grid_y)
    rough = r.uniform(n, 0.05, 0.3) * lobes + r.uniform(n, 0, 0.2) * r.coin(n, 0.5) * fringe
    distance = (p.square() + q.square()).sqrt() / radius
    return 1 - distance + rough * distance.clamp(0.3, 1.2), centre


def add_lesion(r: Random, canvas: Canvas, active: Tensor, look: str, smooth: Tensor) -> Tensor:
    """Pastes a lesion into each image with ``active`` 1, changing ``canvas``; returns its mask (N, S, S).

    ``smooth`` is the clean image, blurred: the surroundings that a lesion's contrast counts from.
    """
    grey, inside = canvas.grey, canvas.inside
    n = len(grey)
    big = {"endoscopy": 0.5, "ultrasound": 0.4}.get(look, 0.33)
    small = {"endoscopy": 0.1, "ultrasound": 0.08, "brain": 0.03}.get(look, 0.025)
    radius = small * (big / small) ** r.uniform(n)
    core = step(inside - 0.5, 0.1)
    depth, centre = lesion_shape(r, n, core, radius)
    soft = r.uniform(n, 0.03, 0.35) * r.coin(n, 0.7) + 0.03
    # A lesion keeps at least about one pixel of blur.
    soft = torch.maximum(soft, 0.6 / (radius * r.size))
    alpha = torch.sigmoid(depth / soft * 2) * core
    local = sample_at(smooth, centre)
    bright = {"ultrasound": 0.3, "endoscopy": 0.6}.get(look, 0.66)
    # Where there is no room above (or below), the contrast goes the other way.
    sign = 2 * r.coin(n, bright) - 1
    sign = torch.where(
        local > 0.8, -torch.ones_like(sign), torch.where(local < 0.22, torch.ones_like(sign), sign)
    )
    low, high = {"endoscopy": (0.05, 0.3), "ultrasound": (0.1, 0.35)}.get(look, (0.11, 0.6))
    contrast = sign * (low + (high - low) * r.uniform(n) ** 1.3)
    # Small and blurred lesions must stand out more to be there at all.
    contrast = contrast * (1 + 0.6 * (radius < 0.06))
    own = r.uniform(n, 0, 0.06) * r.fractal(n, 10, 3)
    target = blend(grey, local * torch.ones_like(grey), r.uniform(n, 0.1, 1)) + contrast + own
    lesion = target
    # Ring: the outer shell has the contrast (stronger), the core another value.
    ring = r.coin(n, 0.2) * (radius > 0.07)
    core_alpha = step(depth - r.uniform(n, 0.25, 0.6), 0.08) * ring
    lesion = blend(lesion, local + contrast * r.uniform(n, -1.2, 0.4), core_alpha)
    # Compartments: patches of other intensity inside.
    patches = step(r.field(n, 8) - r.uniform(n, 0, 0.8), 0.2) * r.coin(n, 0.3) * (radius > 0.06)
    lesion = lesion + patches * contrast * r.uniform(n, -1.3, 0.8)
    if look == "endoscopy":  # a polyp: a mound lit from one side, with a darker edge
        gx, gy = torch.gradient(depth.clamp(-0.3, 1), dim=(2, 1))
        slope = (gx * r.uniform(n, -1, 1) + gy * r.uniform(n, -1, 1)) * radius * r.size * 0.25
        lesion = lesion + slope + 0.12 * r.uniform(n) * depth.clamp(0, 1)
        alpha_edge = torch.exp(-(depth / 0.12).square()) * r.uniform(n, 0, 0.5) * active
        grey = grey * (1 - 0.4 * alpha_edge)
        if canvas.tint is not None:
            cast = 1 + 0.12 * torch.stack([r.uniform(n, -1, 1) for _ in range(3)], 1)
            canvas.tint = blend(canvas.tint, canvas.tint * cast, (alpha * active).unsqueeze(1))
    mask = alpha > 0.5
    # Swelling around the lesion, weaker and more ragged, part of what is anomalous.
    swelling = r.coin(n, 0.3) * (radius > 0.05) * (look in ("brain", "abstract", "real"))
    wide = (depth + r.uniform(n, 0.3, 1.0) * (1 + 0.7 * r.field(n, 7))).clamp(-9, 9)
    wide_alpha = torch.sigmoid(wide / 0.12) * core * swelling * active
    wide_contrast = (
        r.uniform(n, 0.35, 0.8) * contrast.abs().clamp(0.12, 0.4) * (2 * r.coin(n, 0.7) - 1) * sign
    )
    grey = blend(grey, blend(grey, local * torch.ones_like(grey), 0.4) + wide_contrast, wide_alpha)
    grey = blend(grey, lesion, alpha * active)
    if look == "ultrasound":
        halo = (
            torch.exp(-((depth + 0.05) / 0.08).square()) * r.coin(n, 0.3) * r.uniform(n, -0.2, 0.25) * active
        )
        spots = step(r.field(n, 40) - 2.2, 0.1) * alpha * r.coin(n, 0.3) * active
        grey = grey + halo * inside + 0.5 * spots
    canvas.grey = grey
    return ((mask & (active > 0)) | (wide_alpha > 0.5)).float()


def sample_at(values: Tensor, centre: Tensor) -> Tensor:
    """Values (N, S, S) at one pixel index each: (N, 1, 1)."""
    return values.flatten(1).gather(1, centre[:, None]).unsqueeze(-1)


def add_twins(r: Random, canvas: Canvas, chance: float) -> None:
    """Hard normal images: a lesion-like pair, mirrored about the image's middle line, that is no lesion."""
    n = len(canvas.grey)
    radius = r.uniform(n, 0.04, 0.2)
    depth, _ = lesion_shape(r, n, canvas.inside * (r.x.abs() > 0.15), radius)
    alpha = torch.sigmoid(depth / 0.15)
    alpha = torch.maximum(alpha, alpha.flip(-1)) * canvas.inside
    value = r.uniform(n)
    canvas.grey = blend(
        canvas.grey, value * torch.ones_like(canvas.grey), alpha * r.coin(n, chance) * r.uniform(n, 0.3, 1)
    )


def scratches(r: Random, canvas: Canvas, active: Tensor) -> Tensor:
    """Thin bent defects for manufactured looks; returns their mask."""
    n = len(canvas.grey)
    angle, bend = r.uniform(n, 0, math.pi), r.uniform(n, -0.8, 0.8)
    x, y = r.x - r.uniform(n, -0.5, 0.5), r.y - r.uniform(n, -0.5, 0.5)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    across = across + bend * along.square() + 0.03 * r.field(n, 5)
    inside = (across.abs() < r.uniform(n, 0.012, 0.05)) & (along.abs() < r.uniform(n, 0.1, 0.6))
    mask = inside.float() * (canvas.inside > 0.5) * active
    sign = 2 * r.coin(n, 0.4) - 1
    canvas.grey = blend(
        canvas.grey, canvas.grey + sign * r.uniform(n, 0.15, 0.5), F.avg_pool2d(mask[:, None], 3, 1, 1)[:, 0]
    )
    return mask


def blur(images: Tensor, sigma: Tensor, reach: int = 4) -> Tensor:
    """Gaussian blur of (N, C, S, S) with its own ``sigma`` (N, 1, 1) in pixels per image."""
    n, channels, *_ = images.shape
    offsets = torch.arange(-reach, reach + 1).float().view(1, -1)
    kernel = torch.exp(-0.5 * (offsets / sigma.view(n, 1).clamp_min(0.05)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = images.reshape(1, n * channels, *images.shape[-2:])
    flat = F.conv2d(flat, kernel.view(-1, 1, 1, 2 * reach + 1), padding=(0, reach), groups=n * channels)
    flat = F.conv2d(flat, kernel.view(-1, 1, 2 * reach + 1, 1), padding=(reach, 0), groups=n * channels)
    return flat.reshape(images.shape)


def acquire(r: Random, canvas: Canvas, look: str) -> Tensor:
    """Bias, blur, noise, gamma, window and colour: the finished images (N, 3, S, S) in [0, 1]."""
    grey, inside = canvas.grey, (canvas.grey > 0.01).float()
    n = len(grey)
    grey = grey * (1 + 0.12 * r.uniform(n) * r.field(n, 2))
    if look == "ultrasound":
        speckle = (r.field(n, r.size).square() + r.field(n, r.size).square()).sqrt() / 1.25
        speckle = blur(speckle[:, None], r.uniform(n, 0.4, 1.1))[:, 0]
        grey = grey * blend(torch.ones_like(grey), speckle * r.uniform(n, 0.9, 1.2), r.uniform(n, 0.4, 1))
    images = grey[:, None]
    if canvas.tint is not None:
        images = images * canvas.tint
    sigma = r.uniform(n, 0.0, 1.0) * r.coin(n, 0.6) * (1 + r.coin(n, 0.15)) * r.size / 160
    images = blur(images, sigma)
    noise = 0.05 * r.uniform(n).square().unsqueeze(1) * r.normal(n, 1, r.size, r.size)
    images = (images + noise * (inside[:, None] if look in ("brain", "real") else 1)).clamp(0, 2)
    if look == "endoscopy":
        shine = step(r.field(n, 24) - r.uniform(n, 1.9, 3.2), 0.08) * step(grey - 0.35, 0.05)
        images = blend(images, torch.ones_like(images), shine[:, None])
    if look in ("brain", "abstract", "body", "real"):  # display window: percentiles of the foreground
        values = images.flatten(1)
        top = torch.quantile(values[:, ::7], 0.995, dim=1).view(n, 1, 1, 1).clamp_min(0.1)
        images = blend(images, images / top, r.coin(n, 0.75).unsqueeze(1))
        inverted = r.coin(n, 0.06 if look != "abstract" else 0.3).unsqueeze(1)
        images = blend(images, (1 - images) * inside[:, None], inverted)
    images = images.clamp(0, 1) ** torch.exp(0.35 * r.normal(n, 1, 1, 1).clamp(-2, 2))
    lift = r.uniform(n, 0, 0.06) * r.coin(n, 0.2)
    images = images * (1 - lift.unsqueeze(1)) + lift.unsqueeze(1)
    return images.expand(n, 3, r.size, r.size)


MAKERS = {
    "brain": brain,
    "abstract": abstract,
    "body": body,
    "endoscopy": endoscopy,
    "ultrasound": ultrasound,
    "texture": textures,
}


def generate(
    seed: int,
    count: int,
    size: int,
    slices: Tensor | None = None,
    *,
    abnormal: float = 0.56,
    pairs: bool = False,
) -> Batch:
    """Makes one batch.

    Args:
        seed: all randomness comes from it.
        count: images.
        size: side in pixels.
        slices: uint8 (M, S0, S0), real normal slices (see :func:`load_slices`); None leaves that look out.
        abnormal: share of images with lesions.
        pairs: also make the clean twin of each image: the first half of the batch has no lesion, the
            second half is the same with one; for tests. Then ``abnormal`` is ignored.

    Returns:
        The batch, in random order of looks (pairs: image i + count / 2 is the twin of image i).
    """
    chooser = torch.Generator().manual_seed(seed)
    shares = torch.tensor(SHARES)
    if slices is None:
        shares[LOOKS.index("real")] = 0
    number = count // 2 if pairs else count
    chosen = torch.multinomial(shares, number, replacement=True, generator=chooser)
    images = torch.empty(number, 3, size, size)
    twins = torch.empty(number, 3, size, size) if pairs else None
    masks = torch.zeros(number, size, size)
    for index, look in enumerate(LOOKS):
        places = (chosen == index).nonzero()[:, 0]
        n = len(places)
        if not n:
            continue
        r = Random(seed * 16 + index + 1, size)
        canvas = real(r, n, slices) if look == "real" else MAKERS[look](r, n)
        if look in ("brain", "real", "body"):
            add_twins(r, canvas, 0.12)
        if pairs:
            state = r.source.get_state()
            twins[places] = acquire(r, Canvas(canvas.grey, canvas.inside, canvas.tint), look)
        sick = torch.ones(n, 1, 1) if pairs else r.coin(n, abnormal)
        clean = canvas.grey
        smooth = F.avg_pool2d(clean[:, None], 9, 1, 4)[:, 0]
        many = r.pick(n, 10).view(n, 1, 1)
        mask = torch.zeros(n, size, size)
        is_scratch = r.coin(n, 0.4) if look == "texture" else torch.zeros(n, 1, 1)
        if look == "texture":
            mask = scratches(r, canvas, sick * is_scratch)
        for number_of, least in ((1, -1), (2, 6), (3, 8)):
            if number_of == 1 or bool((many >= least).any()):
                active = sick * (1 - is_scratch) * (many >= least)
                mask = torch.maximum(mask, add_lesion(r, canvas, active, look, smooth))
        if pairs:
            r.source.set_state(state)
        images[places] = acquire(r, canvas, look)
        # A lesion that the eye could not tell from its surroundings teaches nothing but noise.
        changed = (canvas.grey - clean).abs() > 0.03
        masks[places] = mask * closed(changed & (mask > 0))
    if pairs:
        images, masks = torch.cat([twins, images]), torch.cat([torch.zeros_like(masks), masks])
    return Batch(images.contiguous(), masks, (masks.amax((1, 2)) > 0).long())


def closed(mask: Tensor) -> Tensor:
    """Morphological closing (dilate, erode by 2 pixels) of a boolean mask (N, S, S), as float."""
    grown = F.max_pool2d(mask[:, None].float(), 5, 1, 2)
    return 1 - F.max_pool2d(1 - grown, 5, 1, 2)[:, 0]


def load_slices(root: str | os.PathLike[str] | None, size: int = 192) -> Tensor | None:
    """Normal slices of the redistributable real scans below ``root``/data, for pasting lesions.

    Reads only ``dicom_head_ct``, ``dicom_brain_mr`` and the CT and MR of ``body_ct_small``.

    Args:
        root: the folder that holds ``data/``; None, or one without the three folders, gives None.
        size: side in pixels that the slices are padded and resized to.

    Returns:
        uint8 (M, size, size), or None.
    """
    if root is None or not (Path(root) / "data").is_dir():
        return None
    import nibabel as nib
    import numpy as np
    import pydicom

    data = Path(root) / "data"
    planes: list[Tensor] = []

    def add(array: np.ndarray, low: float, high: float) -> None:
        image = ((torch.from_numpy(np.asarray(array, dtype="float32")) - low) / (high - low)).clamp(0, 1)
        rows, columns = (image > 0.06).any(1).nonzero()[:, 0], (image > 0.06).any(0).nonzero()[:, 0]
        if len(rows) < 24 or len(columns) < 24:
            return
        image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        height, width = image.shape
        side = max(height, width)
        image = F.pad(
            image,
            ((side - width) // 2, (side - width + 1) // 2, (side - height) // 2, (side - height + 1) // 2),
        )
        image = F.interpolate(image[None, None], (size, size), mode="bilinear", antialias=True)[0, 0]
        planes.append((image * 255).round().to(torch.uint8))

    for path in sorted((data / "dicom_head_ct").glob("*.dcm")):
        file = pydicom.dcmread(path)
        array = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        add(array, 0, 80)
        add(array, -100, 300)
    volumes = []
    mr = [pydicom.dcmread(path) for path in sorted((data / "dicom_brain_mr").glob("*.dcm"))]
    if mr:
        mr.sort(key=lambda file: float(file.InstanceNumber))
        volumes.append((np.stack([file.pixel_array for file in mr]), False, (0,)))  # thick slices: one plane
    for name, is_ct in (
        ("example_ct.nii.gz", True),
        ("example_ct_sm.nii.gz", True),
        ("example_mr_sm.nii.gz", False),
    ):
        for path in sorted((data / "body_ct_small").rglob(name)):
            volumes.append((np.asarray(nib.load(path).dataobj), is_ct, (0, 1, 2)))
    for volume, is_ct, axes in volumes:
        windows = (
            [(-160, 240), (-1000, 300)] if is_ct else [tuple(np.percentile(volume[volume > 0], (1, 99.5)))]
        )
        for axis in axes:
            if volume.shape[axis] < 24:
                continue
            chosen = range(volume.shape[axis] // 6, volume.shape[axis] * 5 // 6, 1 if len(axes) == 1 else 3)
            for index in chosen:
                plane = np.take(volume, index, axis)
                plane = plane if len(axes) == 1 else np.rot90(plane)
                if min(plane.shape) >= 48:
                    for low, high in windows:
                        add(plane, low, high)
    return torch.stack(planes) if planes else None
