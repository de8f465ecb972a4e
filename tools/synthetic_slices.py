"""Slices of made volumes with and without lesions: what the slice network of medzsad-mini is trained on.

A sample is a slice with its neighbours below and above, in standard deviations of its whole volume, as
:mod:`medzsad.inference.slicewise` shows them to a detector. Sources: slices of anatomical label maps with
tissues of random intensity (:mod:`synthetic.head_slices`), real normal volumes (:mod:`synthetic.volumes`),
the looks of :mod:`synthetic_images`, three equal slices each, and whole made volumes, shown as ``predict``
does (:mod:`synthetic.shown_volumes`).

    python tools/synthetic_slices.py sheet.png --data "$MEDZSAD_SHARED"        # a contact sheet
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))
import synthetic_images
from synthetic.canvas import blur
from synthetic.fields import Random
from synthetic.head_slices import STRIPPED, sample_head
from synthetic.heads import KIND_SHARES, Head, load_heads
from synthetic.shown_volumes import draw_shown
from synthetic.spots import PATTERN_SHARES
from synthetic.volumes import Volume, load_unmarked, load_volumes, sample_volume

from medzsad.detectors.volume_intensity import encode

# Label maps, real volumes, looks, real volumes with an unmarked brain, made volumes as they are shown.
SHARES = (0.64, 0.16, 0.20, 0.0, 0.0)
# brain, abstract, body, real, endoscopy, ultrasound, surface, objects, skin
LOOK_SHARES = (0.55, 0.10, 0.10, 0.17, 0.0, 0.08, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Sources:
    """What samples are made from; what is missing is left out.

    Attributes:
        heads: label maps.
        volumes: real normal volumes.
        slices: uint8 (M, S0, S0) of :func:`synthetic_images.load_slices`.
        unmarked: real volumes, normal outside of the brain and unknown inside.
    """

    heads: list[Head]
    volumes: list[Volume]
    slices: Tensor | None
    unmarked: list[Volume] = field(default_factory=list)


class SliceBatch(NamedTuple):
    """One generated batch.

    Attributes:
        images: float32 (B, 3, S, S) in [0, 1]: own slice, below, above, of
            :func:`medzsad.detectors.volume_intensity.encode`.
        lesions: int16 (B, S, S), number of the lesion in its image from 1 on, 0 outside, -1 where it is not
            known.
        labels: int64 (B,), 1 for an image with a lesion, -1 where it is not known.
        brain: float32 (B, S, S), 1 inside the brain, 0 outside, -1 where it is not known.
    """

    images: Tensor
    lesions: Tensor
    labels: Tensor
    brain: Tensor


def load_sources(root: str | os.PathLike[str] | None) -> Sources:
    """All that lies below ``root``/data."""
    return Sources(
        load_heads(root), load_volumes(root), synthetic_images.load_slices(root), load_unmarked(root)
    )


def generate(
    seed: int,
    count: int,
    size: int,
    sources: Sources,
    *,
    abnormal: float = 0.7,
    shares: tuple[float, ...] = SHARES,
    kinds: tuple[float, ...] = KIND_SHARES,
    stripped: float = STRIPPED,
    patterns: tuple[float, ...] = PATTERN_SHARES,
    bodies: bool = False,
    below: float = 0.0,
) -> SliceBatch:
    """Make one batch; the same seed gives the same batch.

    Args:
        seed: all randomness comes from it.
        count: samples.
        size: side in pixels.
        sources: of :func:`load_sources`.
        abnormal: share of samples with lesions.
        shares: in the order of :data:`SHARES`; what is not named counts as 0. Whole made volumes have orders
            of tissues, lesions and fields of view of their own: half of their slices are of heads with
            lesions, unless ``abnormal`` is 0, and what follows does not change them.
        kinds: shares of :data:`synthetic.heads.KINDS` among label maps.
        stripped: share of label maps, but for CT, of which the brain alone is shown.
        patterns: shares of :data:`synthetic.spots.PATTERN_SHARES`.
        bodies: tell of real volumes without a brain that there is none; else that is left open.
        below: share of whole heads that are cut below the brain or at its lower end.
    """
    r = np.random.default_rng([seed, size])
    there = [bool(sources.heads), bool(sources.volumes), True, bool(sources.unmarked), bool(sources.heads)]
    weights = np.array([*shares, 0, 0, 0, 0][:5]) * there
    chosen = r.choice(5, count, p=weights / weights.sum())
    # Looks last, whole volumes before them: each are made together.
    chosen = chosen[np.argsort((chosen == 2) * 2 + (chosen == 4), kind="stable")]
    grey = np.empty((count, 3, size, size), dtype=np.float32)
    inside = np.zeros((count, 3, size, size), dtype=bool)
    lesions = np.zeros((count, size, size), dtype=np.int16)
    brain = np.full((count, size, size), -1, dtype=np.float32)
    made, framed = int(np.isin(chosen, (0, 1, 3)).sum()), int((chosen == 4).sum())
    for index in range(made):
        own = np.random.default_rng([seed, size, index])
        sick = own.random() < abnormal
        if chosen[index] == 0:
            scene, inside[index], known = sample_head(
                own, size, sources.heads, sick, kinds, stripped, patterns, below
            )
        else:
            volumes = sources.volumes if chosen[index] == 1 else sources.unmarked
            scene, inside[index], known = sample_volume(own, size, volumes, sick, patterns, bodies)
        grey[index], lesions[index] = scene.grey, scene.lesions
        if known is not None:
            brain[index] = known
    images = torch.from_numpy(grey)
    if made:
        edge = Random(seed * 2 + 1, size)
        images[:made] = acquire(edge, images[:made], torch.from_numpy(inside[:made]))
        # Resampling to the detector's size blurs the border of the foreground too.
        images[:made] = blur(
            encode(images[:made], torch.from_numpy(inside[:made])), edge.uniform(made, 0.2, 0.9)
        )
    first = made + framed
    if framed:
        r_shown = np.random.default_rng([seed, size, count])
        shown = draw_shown(r_shown, framed, size, sources.heads, lesions=abnormal > 0)
        images[made:first], lesions[made:first], brain[made:first] = shown
    if first < count:
        looks = synthetic_images.generate(
            seed, count - first, size, sources.slices, abnormal=abnormal, shares=LOOK_SHARES, grey=True
        )
        images[first:] = standardise_looks(r, looks.images)
        lesions[first:] = looks.masks.numpy().astype(np.int16)
    marks = torch.from_numpy(lesions)
    order = torch.from_numpy(r.permutation(count))
    found, doubtful = (marks > 0).any(2).any(1), (marks < 0).any(2).any(1)
    labels = torch.where(found, 1, torch.where(doubtful, -1, 0))
    return SliceBatch(images[order], marks[order], labels[order], torch.from_numpy(brain)[order])


def acquire(r: Random, grey: Tensor, inside: Tensor) -> Tensor:
    """Resolution, bias field and noise: (N, 3, S, S) in standard deviations of the volume."""
    n = len(grey)
    outside = grey * inside + (-3.0) * (~inside)
    sigma = r.uniform(n, 0.25, 0.9) + r.uniform(n, 0, 1.0) * r.coin(n, 0.25)
    soft = blur(outside, sigma)
    coarse = r.coin(n, 0.3).flatten() > 0  # voxels of two pixels and more
    if coarse.any():
        side = max(16, int(r.size * float(r.uniform(1, 0.42, 0.75))))
        low = F.interpolate(soft[coarse], (side, side), mode="area")
        low = low + 0.12 * r.uniform(len(low))[:, None] * r.normal(*low.shape)
        soft[coarse] = F.interpolate(low, (r.size, r.size), mode="bicubic", align_corners=False)
    # A field of the coil multiplies what is above black, which lies about 2 deviations below the mean.
    bias = torch.exp(r.uniform(n, 0, 0.22) * r.coin(n, 0.8) * r.field(n, 2))[:, None]
    soft = (soft + 2) * bias - 2
    noise = 0.22 * r.uniform(n).square()[:, None]
    return soft + noise * r.normal(n, 3, r.size, r.size)


def standardise_looks(r: np.random.Generator, images: Tensor) -> Tensor:
    """Images in [0, 1] as slices of volumes: standardised over their own foreground, roughly."""
    grey = images[:, :1]
    inside = grey > 0.03
    count = inside.sum((2, 3), keepdim=True).clamp_min(1)
    centre = (grey * inside).sum((2, 3), keepdim=True) / count
    spread = (((grey - centre).square() * inside).sum((2, 3), keepdim=True) / count).sqrt() + 0.02
    n = len(images)
    shift = torch.from_numpy(r.normal(0, 0.3, (n, 1, 1, 1)).astype(np.float32))
    factor = torch.from_numpy(np.exp(r.normal(0, 0.2, (n, 1, 1, 1))).astype(np.float32))
    return encode((grey - centre) / spread * factor + shift, inside).expand(-1, 3, -1, -1)


def sheet(batch: SliceBatch, columns: int = 8) -> np.ndarray:
    """Return a contact sheet.

    Own slice, and beside it the same with lesions in red and the brain's outline.
    """
    rows = []
    tiles = []
    for image, lesions, brain in zip(batch.images, batch.lesions, batch.brain, strict=True):
        grey = ((image[0] * 12 - 4 + 2.2) / 5.5).clamp(0, 1)
        plain = torch.stack([grey] * 3, -1)
        marked = plain.clone()
        marked[lesions > 0] = torch.stack([grey * 0.5 + 0.5, grey * 0.5, grey * 0.5], -1)[lesions > 0]
        marked[..., 2] = torch.where(brain == 1, marked[..., 2] + 0.15, marked[..., 2]).clamp(0, 1)
        marked[..., 1] = torch.where(lesions < 0, marked[..., 1] + 0.15, marked[..., 1]).clamp(0, 1)
        tiles.append(torch.cat([plain, marked], 1))
    for start in range(0, len(tiles) - columns + 1, columns):
        rows.append(torch.cat(tiles[start : start + columns], 1))
    return (torch.cat(rows) * 255).byte().numpy()


def main() -> None:
    """Write a contact sheet."""
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default=os.environ.get("MEDZSAD_SHARED"), help="folder that holds data/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    args = parser.parse_args()
    batch = generate(args.seed, args.count, args.size, load_sources(args.data), shares=args.shares)
    Image.fromarray(sheet(batch, 4)).save(args.out)


if __name__ == "__main__":
    main()
