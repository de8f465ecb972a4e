"""From a canvas to the finished image: artefacts, speckle, blur, noise, window, highlights, frame, shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from synthetic.canvas import Canvas, blend, blur, box, step
from synthetic.fields import Random

SCANS = ("brain", "abstract", "body", "real")
ULTRASOUND = ("ultrasound", "thyroid")


def acquire(r: Random, canvas: Canvas, look: str) -> Tensor:
    """Bias, artefacts, blur, noise, gamma, window, colour and frame: images (N, 3, S, S) in [0, 1]."""
    grey, inside = canvas.grey, (canvas.grey > 0.01).float()
    n = len(grey)
    grey = grey * (1 + 0.12 * r.uniform(n) * r.field(n, 2))
    if look in SCANS:
        grey = artefacts(r, grey, inside)
    if look in ULTRASOUND:
        grey = grey * speckle(r, n)
    images = grey[:, None]
    if canvas.tint is not None:
        images = images * canvas.tint
    sigma = r.uniform(n, 0.0, 1.0) * r.coin(n, 0.6) * (1 + r.coin(n, 0.15)) * r.size / 160
    images = blur(images, sigma)
    grain = 0.03 if look in ("endoscopy", "colon", "surface", "objects") else 0.05
    noise = grain * r.uniform(n).square().unsqueeze(1) * r.normal(n, 1, r.size, r.size)
    images = (images + noise * (inside[:, None] if look in SCANS else 1)).clamp(0, 2)
    if look == "endoscopy":
        images = torch.maximum(images, highlights(r, grey)[:, None])
    if look == "colon":
        images = torch.maximum(images, glints(r, grey)[:, None])
    if look in SCANS:  # display window: percentiles of the foreground
        values = images.flatten(1)
        top = torch.quantile(values[:, ::7], 0.995, dim=1).view(n, 1, 1, 1).clamp_min(0.1)
        images = blend(images, images / top, r.coin(n, 0.75).unsqueeze(1))
        inverted = r.coin(n, 0.06 if look != "abstract" else 0.3).unsqueeze(1)
        images = blend(images, (1 - images) * inside[:, None], inverted)
    contrast = 0.35 if look in SCANS + ULTRASOUND else 0.25
    images = images.clamp(0, 1) ** torch.exp(contrast * r.normal(n, 1, 1, 1).clamp(-2, 2))
    lift = r.uniform(n, 0, 0.06) * r.coin(n, 0.2)
    images = images * (1 - lift.unsqueeze(1)) + lift.unsqueeze(1)
    images = images * canvas.view[:, None]
    if canvas.drawn is not None:
        images = blend(images, canvas.drawn, canvas.cover[:, None])
    return images.clamp(0, 1).expand(n, 3, r.size, r.size)


def artefacts(r: Random, grey: Tensor, inside: Tensor) -> Tensor:
    """Of scanners: ghosts of motion, a zipper line, rings, bright fat near the outline. No lesions."""
    n = len(grey)
    ghost = grey.roll(int(r.pick(1, 16)) + 4, 1) - grey.roll(-int(r.pick(1, 16)) - 4, 1)
    grey = grey + r.uniform(n, 0, 0.12) * r.coin(n, 0.06) * ghost.abs()
    at = r.uniform(n, -1, 1)
    zipper = ((r.x - at).abs() < 1.2 / r.size) * r.normal(n, r.size, 1).abs()
    grey = grey + r.uniform(n, 0.05, 0.4) * r.coin(n, 0.04) * zipper
    radius = ((r.x - 0.1 * r.normal(n, 1, 1)).square() + (r.y - 0.1 * r.normal(n, 1, 1)).square()).sqrt()
    waves = torch.sin(radius * r.uniform(n, 30, 120))
    grey = grey + r.uniform(n, 0, 0.05) * r.coin(n, 0.06) * waves * inside
    border = inside * (1 - box(inside, 7))
    return grey + r.uniform(n, 0.2, 1.2) * r.coin(n, 0.08) * border * step(r.field(n, 4), 0.3)


def speckle(r: Random, n: int) -> Tensor:
    """Factors (N, S, S) about 1: Rayleigh speckle, longer across the beam than along it."""
    noise = (r.field(n, r.size).square() + r.field(n, r.size).square()).sqrt() / 1.25
    wide = F.avg_pool2d(noise[:, None], (1, 3), 1, (0, 1))[:, 0] * 1.5 - 0.5
    noise = blend(noise, wide, r.uniform(n))
    noise = blur(noise[:, None], r.uniform(n, 0.4, 1.1))[:, 0]
    return blend(torch.ones_like(noise), noise * r.uniform(n, 0.9, 1.2), r.uniform(n, 0.4, 1))


def highlights(r: Random, grey: Tensor) -> Tensor:
    """Mirror images of the lamp on wet tissue, where it is bright: (N, S, S) in [0, 1]."""
    n = len(grey)
    fine, broad = r.field(n, 26), r.field(n, (9, 14))
    shine = step(fine + 1.5 * (grey - 0.6) - r.uniform(n, 1.8, 3.2), 0.06)
    shine = torch.maximum(shine, step(broad + 2.5 * (grey - 0.7) - r.uniform(n, 2.3, 3.5), 0.05))
    return shine * step(grey - 0.35, 0.04)


def glints(r: Random, grey: Tensor) -> Tensor:
    """Small mirror images of the lamp, in clusters where wet tissue is bright: (N, S, S) in [0, 1]."""
    n = len(grey)
    fine = r.field(n, (50, 70)) + 0.8 * r.field(n, 7) + 1.2 * (grey.clamp_max(1) - 0.6)
    fine = fine + 4 * (grey - grey.roll((1, 1), (1, 2)))  # lobes break them up
    return step(fine - r.uniform(n, 2.3, 4.2), 0.08) * step(grey - 0.3, 0.04)


def letterbox(r: Random, images: Tensor, masks: Tensor, chance: float) -> tuple[Tensor, Tensor]:
    """Squeezes images with ``chance`` along one side and pads with black, as an oblong picture is shown.

    Args:
        r: the random numbers.
        images: (N, 3, S, S).
        masks: (N, S, S).
        chance: of an oblong picture.
    """
    n = len(images)
    factor = 1 / blend(torch.ones(n, 1, 1), r.uniform(n, 0.5, 0.95), r.coin(n, chance)).flatten()
    wide = r.coin(n, 0.7).flatten()
    zero, one = torch.zeros(n), torch.ones(n)
    rows = [
        torch.stack([torch.where(wide > 0, one, factor), zero, zero], 1),
        torch.stack([zero, torch.where(wide > 0, factor, one), zero], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [n, 1, r.size, r.size], align_corners=False)
    images = F.grid_sample(images, grid, align_corners=False)
    return images, F.grid_sample(masks[:, None], grid, mode="nearest", align_corners=False)[:, 0]
