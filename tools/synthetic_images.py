"""Procedurally made images with and without lesions: what medzsad-mini is trained on.

Everything is vectorised over the batch, in torch. A batch is a mix of looks (brain slices, other body
slices, tissue maps, endoscopy, ultrasound, skin, surfaces, objects, real normal slices); each look makes
clean images, into part of which lesions or defects come; then follow the effects of acquisition. Some images
hold things that look like lesions and are none: highlights, folds, text, panels, vessels, artefacts.

On a GPU: ``with torch.device("cuda"): generate(...)``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))
from synthetic.acquisition import acquire, letterbox
from synthetic.bodies import abstract, body, brain
from synthetic.canvas import Batch, Canvas, visible
from synthetic.colon import add_growth, colon
from synthetic.defects import add_defect
from synthetic.endoscopy import add_polyp, endoscopy
from synthetic.fields import Random
from synthetic.lesions import add_lesion, add_shell, add_twins
from synthetic.skin import add_spot, hairs, skin
from synthetic.slices import load_slices, real
from synthetic.surfaces import objects, surface
from synthetic.thyroid import add_gland_nodule, thyroid
from synthetic.ultrasound import add_nodule, ultrasound

__all__ = ["LOOKS", "SHARES", "Batch", "generate", "load_slices"]

LOOKS = (
    "brain",
    "abstract",
    "body",
    "real",
    "endoscopy",
    "ultrasound",
    "surface",
    "objects",
    "skin",
    "colon",
    "thyroid",
)
SHARES = (0.36, 0.12, 0.06, 0.10, 0.12, 0.08, 0.09, 0.04, 0.03)
MAKERS = {
    "brain": brain,
    "abstract": abstract,
    "body": body,
    "endoscopy": endoscopy,
    "ultrasound": ultrasound,
    "surface": surface,
    "objects": objects,
    "skin": skin,
    "colon": colon,
    "thyroid": thyroid,
}
# Chance of an oblong picture, padded with black.
OBLONG = {
    "endoscopy": 0.3,
    "ultrasound": 0.4,
    "surface": 0.5,
    "objects": 0.2,
    "skin": 0.3,
    "colon": 0.2,
    "thyroid": 0.3,
}
JUST_VISIBLE = {"ultrasound": 0.05, "endoscopy": 0.04, "colon": 0.04, "thyroid": 0.015}  # else 0.03


def generate(
    seed: int,
    count: int,
    size: int,
    slices: Tensor | None = None,
    *,
    abnormal: float = 0.56,
    pairs: bool = False,
    looks: tuple[str, ...] = LOOKS,
    shares: tuple[float, ...] = SHARES,
    grey: bool = False,
) -> Batch:
    """Make one batch.

    Args:
        seed: all randomness comes from it.
        count: images.
        size: side in pixels.
        slices: uint8 (M, S0, S0), real normal slices (see :func:`load_slices`); None leaves that look out.
        abnormal: share of images with lesions.
        pairs: also make the clean twin of each image: the first half of the batch has no lesion, the
            second half is the same with one; for tests. Then ``abnormal`` is ignored.
        looks: only these; alike if ``shares`` gives none of them any.
        shares: of each of :data:`LOOKS`, in any unit; what is not named counts as 0.
        grey: images without colours.

    Returns:
        The batch, in random order of looks (pairs: image i + count / 2 is the twin of image i).
    """
    chooser = torch.Generator("cpu").manual_seed(seed)
    allowed = [look in looks and (look != "real" or slices is not None) for look in LOOKS]
    shares = (*shares, *[0.0] * (len(LOOKS) - len(shares)))
    weights = torch.tensor(shares, device="cpu") * torch.tensor(allowed, device="cpu")
    if not weights.any():
        weights = torch.tensor(allowed, device="cpu").float()
    number = count // 2 if pairs else count
    chosen = torch.multinomial(weights, number, replacement=True, generator=chooser)
    images = torch.empty(number, 3, size, size)
    twins = torch.empty(number, 3, size, size)
    masks = torch.zeros(number, size, size)
    for index, look in enumerate(LOOKS):
        places = (chosen == index).nonzero()[:, 0].to(images.device)
        n = len(places)
        if not n:
            continue
        r = Random(seed * 16 + index + 1, size)
        canvas = real(r, n, slices) if look == "real" else MAKERS[look](r, n)
        if look in ("brain", "real", "body"):
            add_twins(r, canvas, 0.12)
        clean = canvas.take(torch.arange(n))
        sick = torch.ones(n, 1, 1) if pairs else r.coin(n, abnormal)
        mask = harm(r, canvas, sick, look)
        # A lesion that the eye could not tell from its surroundings teaches nothing but noise.
        mask = visible(mask, difference(canvas, clean) > JUST_VISIBLE.get(look, 0.03))
        state = r.source.get_state()
        if look == "skin":
            hairs(r, canvas)
        oblong = OBLONG.get(look, 0)
        images[places], masks[places] = letterbox(r, acquire(r, canvas, look), mask, oblong)
        if pairs:
            r.source.set_state(state)
            if look == "skin":
                hairs(r, clean)
            twins[places], _ = letterbox(r, acquire(r, clean, look), mask, oblong)
    if pairs:
        images, masks = torch.cat([twins, images]), torch.cat([torch.zeros_like(masks), masks])
    if grey:
        images = images.mean(1, keepdim=True).expand_as(images)
    return Batch(images.contiguous(), masks, (masks.amax((1, 2)) > 0).long())


def harm(r: Random, canvas: Canvas, sick: Tensor, look: str) -> Tensor:
    """Give each image with ``sick`` 1 one to three lesions; return their mask (N, S, S)."""
    n = len(canvas.grey)
    many = r.pick(n, 10).view(n, 1, 1)
    mask = torch.zeros_like(canvas.grey)
    shell = sick * r.coin(n, 0.06 if look in ("brain", "real") else 0)
    if shell.any():
        mask = torch.maximum(mask, add_shell(r, canvas, shell))
    for least in (-1, 6, 8):
        active = (sick - shell) * (many >= least)
        if not active.any():
            continue
        if look == "endoscopy":
            new = add_polyp(r, canvas, active)
            if least == -1:
                many = many - 2  # polyps are mostly alone
        elif look == "colon":
            new = add_growth(r, canvas, active)
            many = many - 2
        elif look == "skin":
            new = add_spot(r, canvas, active)
            many = many - 2
        elif look == "ultrasound":
            new = add_nodule(r, canvas, active)
            many = torch.zeros_like(many)
        elif look == "thyroid":
            new = add_gland_nodule(r, canvas, active)
            many = many - 2
        elif look in ("surface", "objects"):
            new = add_defect(r, canvas, active)
        else:
            new = add_lesion(r, canvas, active, 0.03 if look == "brain" else 0.025)
        mask = torch.maximum(mask, new)
    return mask


def difference(one: Canvas, other: Canvas) -> Tensor:
    """How far two canvases differ where they are visible, in the strongest channel: (N, S, S)."""
    a, b = (c.grey[:, None] if c.tint is None else c.grey[:, None] * c.tint for c in (one, other))
    return (a - b).abs().amax(1) * one.view
