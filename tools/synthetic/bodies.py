"""Slices of bodies: heads in MR and CT, torsos, and tissue maps of no anatomy in particular."""

from __future__ import annotations

import torch

from synthetic.canvas import Canvas, blend, blob, make_frame, sample, step, texture, tissue_map
from synthetic.fields import Random


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
