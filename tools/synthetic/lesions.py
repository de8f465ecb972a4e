"""Lesions for grey scans, and lesion-like things that are none."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthetic.canvas import Canvas, blend, box, sample, sample_at, step
from synthetic.fields import Random


def lesion_shape(
    r: Random, n: int, where: Tensor, radius: Tensor, *, rough: float = 1.0, lying: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Distance of every pixel from a lesion's border, in lesion radii, negative outside.

    Args:
        r: the random numbers.
        n: images.
        where: (N, S, S) weights of the places that the centre may take.
        radius: (N, 1, 1) in half-widths of the image.
        rough: factor of the border noise.
        lying: chance of a longer axis that lies across the image.

    Returns:
        The signed depth (N, S, S), 1 at the centre, and the index of the centre pixel (N,).
    """
    coarse = where[:, 2::4, 2::4]
    place = torch.multinomial(coarse.flatten(1) + 1e-6, 1, generator=r.source)[:, 0]
    width = coarse.shape[-1]
    centre = (place // width * 4 + 2) * r.size + place % width * 4 + 2
    cy, cx = r.y.flatten()[centre].view(n, 1, 1), r.x.flatten()[centre].view(n, 1, 1)
    angle = blend(r.uniform(n, 0, math.pi), math.pi / 2 + 0.2 * r.normal(n, 1, 1), r.coin(n, lying))
    aspect = 1 + r.uniform(n, 0, 0.9) * r.coin(n, 0.7)
    dx, dy = r.x - cx, r.y - cy
    p = (dx * angle.cos() + dy * angle.sin()) * aspect.sqrt()
    q = (dy * angle.cos() - dx * angle.sin()) / aspect.sqrt()
    # Border noise at the lesion's own scale: lobes for all, fringes for some.
    lobes = r.field(n, 5)
    grid_x, grid_y = (dx / (3 * radius)).clamp(-1, 1), (dy / (3 * radius)).clamp(-1, 1)
    lobes = sample(lobes, grid_x, grid_y)
    fringe = sample(r.field(n, 12), grid_x, grid_y)
    noise = rough * (r.uniform(n, 0.05, 0.3) * lobes + r.uniform(n, 0, 0.2) * r.coin(n, 0.5) * fringe)
    distance = (p.square() + q.square()).sqrt() / radius
    return 1 - distance + noise * distance.clamp(0.3, 1.2), centre


def add_lesion(r: Random, canvas: Canvas, active: Tensor, small: float) -> Tensor:
    """Pastes a lesion into each image with ``active`` 1, changing ``canvas``; returns its mask (N, S, S).

    Its radius is ``small`` to 0.4 half-widths of the image.
    """
    inside = canvas.inside
    n = len(inside)
    smooth = box(canvas.grey, 4)
    radius = small * (0.4 / small) ** r.uniform(n)
    core = step(inside - 0.5, 0.1)
    depth, centre = lesion_shape(r, n, core, radius)
    soft = r.uniform(n, 0.03, 0.35) * r.coin(n, 0.7) + 0.03
    # A lesion keeps at least about one pixel of blur.
    soft = torch.maximum(soft, 0.6 / (radius * r.size))
    alpha = torch.sigmoid(depth / soft * 2) * core
    local = sample_at(smooth, centre)
    grey = blend(canvas.grey, displaced(r, canvas.grey, depth, centre, radius), active * r.coin(n, 0.2))
    # Where there is no room above (or below), the contrast goes the other way.
    sign = 2 * r.coin(n, 0.68) - 1
    sign = torch.where(local > 0.8, -1.0, torch.where(local < 0.22, 1.0, sign))
    contrast = sign * (0.11 + 0.49 * r.uniform(n) ** 1.3)
    # Small and blurred lesions must stand out more to be there at all.
    contrast = contrast * (1 + 0.6 * (radius < 0.06))
    own = r.uniform(n, 0, 0.06) * r.fractal(n, 10, 3)
    lesion = blend(grey, local * torch.ones_like(grey), r.uniform(n, 0.1, 1)) + contrast + own
    # Ring: the outer shell has the contrast (stronger), the core another value.
    ring = r.coin(n, 0.22) * (radius > 0.07)
    core_alpha = step(depth - r.uniform(n, 0.25, 0.6), 0.08) * ring
    lesion = blend(lesion, local + contrast * r.uniform(n, -1.2, 0.4), core_alpha)
    # Compartments: patches of other intensity inside.
    patches = step(r.field(n, 8) - r.uniform(n, 0, 0.8), 0.2) * r.coin(n, 0.3) * (radius > 0.06)
    lesion = lesion + patches * contrast * r.uniform(n, -1.3, 0.8)
    # Foreign tissue: a part of another image, or of the same one, turned (FPI, PII).
    other = torch.where(r.coin(n, 0.5) > 0, canvas.grey.roll(1, 0), canvas.grey.transpose(1, 2)).flip(1)
    strange = r.coin(n, 0.1) * (radius > 0.08)
    lesion = blend(lesion, blend(grey, other, r.uniform(n, 0.6, 1)), strange)
    # Calcifications: bright specks.
    specks = step(r.field(n, 40) - r.uniform(n, 1.2, 2.2), 0.1) * r.coin(n, 0.08) * (radius > 0.05)
    lesion = lesion + specks * r.uniform(n, 0.3, 0.7)
    # Swelling around the lesion, weaker and more ragged, part of what is anomalous.
    swelling = r.coin(n, 0.33) * (radius > 0.05)
    wide = (depth + r.uniform(n, 0.3, 1.0) * (1 + 0.7 * r.field(n, 7))).clamp(-9, 9)
    wide_alpha = torch.sigmoid(wide / 0.12) * core * swelling * active
    wide_sign = (2 * r.coin(n, 0.7) - 1) * sign
    wide_contrast = r.uniform(n, 0.35, 0.8) * contrast.abs().clamp(0.12, 0.4) * wide_sign
    grey = blend(grey, blend(grey, local * torch.ones_like(grey), 0.4) + wide_contrast, wide_alpha)
    canvas.grey = blend(grey, lesion, alpha * active)
    return (((alpha > 0.5) & (active > 0)) | (wide_alpha > 0.5)).float()


def displaced(r: Random, grey: Tensor, depth: Tensor, centre: Tensor, radius: Tensor) -> Tensor:
    """Return the image as a growing lesion pushes it aside (mass effect)."""
    n = len(grey)
    cx, cy = (sample_at(t.expand(n, -1, -1), centre) for t in (r.x, r.y))
    dx, dy = r.x - cx, r.y - cy
    distance = (dx.square() + dy.square()).sqrt() + 1e-3
    push = r.uniform(n, 0.1, 0.45) * radius * torch.exp(-((1 - depth).clamp_min(0) / 2.2).square())
    return sample(grey, r.x - push * dx / distance, r.y - push * dy / distance)


def add_shell(r: Random, canvas: Canvas, active: Tensor) -> Tensor:
    """Return a crescent along the border of the place where lesions may be, as bleeds under the skull.

    Its mask.
    """
    n, side = len(canvas.grey), r.size
    inside = step(canvas.inside - 0.5, 0.1)
    reach = side // 12
    deep = box(inside, reach)
    rim = inside * step(r.uniform(n, 0.6, 0.9) - deep + 0.05 * r.field(n, 8), 0.04)
    depth, _ = lesion_shape(r, n, rim, r.uniform(n, 0.2, 0.5))
    alpha = rim * step(depth, 0.15) * active
    value = torch.where(r.coin(n, 0.75) > 0, r.uniform(n, 0.6, 1), r.uniform(n, 0, 0.3))
    canvas.grey = blend(canvas.grey, value + 0.03 * r.field(n, 12), alpha * r.uniform(n, 0.6, 1))
    return (alpha > 0.5).float()


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
