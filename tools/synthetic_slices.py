"""Slices of made volumes with and without lesions: what the slice network of medzsad-mini is trained on.

A sample is a slice with its neighbours below and above, in standard deviations of its whole volume, as
:mod:`medzsad.inference.slicewise` shows them to a detector. Sources: heads from anatomical label maps
with tissues of random intensity (:mod:`synthetic.heads`), real normal volumes (:mod:`synthetic.volumes`), the
looks of :mod:`synthetic_images`, three equal slices each, and whole made volumes, shown as ``predict`` does
(:mod:`synthetic.shown_volumes`).

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
from synthetic.heads import BRAIN, INDEX, INNER, KIND_SHARES, KINDS, Head, draw_tissues, load_heads
from synthetic.planes import Cut, draw_cut, nearest, smooth_field
from synthetic.shown_volumes import draw_shown
from synthetic.spots import PATTERN_SHARES, Scene, harm
from synthetic.volumes import PLANES, Volume, load_unmarked, load_volumes, sample_volume

from medzsad.detectors.volume_intensity import encode

# Label maps, real volumes, looks, real volumes with an unmarked brain, made volumes as they are shown.
SHARES = (0.64, 0.16, 0.20, 0.0, 0.0)
# brain, abstract, body, real, endoscopy, ultrasound, surface, objects, skin
LOOK_SHARES = (0.55, 0.10, 0.10, 0.17, 0.0, 0.08, 0.0, 0.0, 0.0)
STRIPPED, STRIPPED_CT = 0.55, 0.15  # share of heads of which the brain alone is shown
LOWER_END = 20  # of the brain, in slices of 1 mm
FULL = 0.85  # share of whole heads that keep their lesions: most of a head is normal
DARK = {"random": 0.4, "flair": 0.06, "t1": 0.6, "t2": 0.08, "ct": 0.5}


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


def sample_head(
    r: np.random.Generator,
    size: int,
    heads: list[Head],
    sick: bool,
    kinds: tuple[float, ...] = KIND_SHARES,
    stripped: float = STRIPPED,
    patterns: tuple[float, ...] = PATTERN_SHARES,
    below: float = 0.0,
) -> tuple[Scene, np.ndarray, np.ndarray]:
    """Return a slice of a head with tissues of random intensity.

    Its foreground (3, S, S) and brain (S, S).
    """
    head = heads[int(r.integers(len(heads)))]
    kind = KINDS[int(r.choice(len(KINDS), p=kinds))]
    stripped = r.random() < (STRIPPED_CT if kind == "ct" else stripped)
    box = head.brain_box if stripped else np.array([(0, n - 1) for n in head.tissues.shape])
    if not stripped:  # where the field of view ends below, and now and then above
        box[2, 0] = int(r.uniform(0, head.brain_box[2, 0] + 10))
        if r.random() < 0.2:
            box[2, 1] = int(r.uniform(head.brain_box[2, 1] - 35, box[2, 1]))
        sick = sick and r.random() < FULL
    where, core, planes = box, head.brain_box, (0.7, 0.15, 0.15)
    if below and not stripped and r.random() < below:
        where = core = box.copy()
        where[2, 1] = max(box[2, 0] + 1, head.brain_box[2, 0] + LOWER_END)
        planes = (1.0, 0.0, 0.0)
    cut = draw_cut(r, size, where, core, np.ones(3), planes=PLANES, shares=planes)
    tissues = nearest(head.tissues, cut.points)  # (3, K, N)
    mean, texture = draw_tissues(r, kind)
    counts = head.counts.astype(float)
    keep = np.ones(len(mean), dtype=bool)
    if stripped:
        keep = INNER if r.random() < 0.8 else BRAIN
    keep = keep.copy()
    keep[0] = False
    spread, centre = standardisation(mean, texture, counts * keep, kind)
    spread *= np.exp(r.normal(0, 0.12))
    centre += spread * r.normal(0, 0.12)
    table, grain = ((mean - centre) / spread).astype(np.float32), (texture / spread).astype(np.float32)
    coarse = smooth_field(r, int(r.integers(4, 30)), size).ravel()
    fine = r.standard_normal((3, 1, size * size), dtype=np.float32)
    field = 0.6 * coarse + 0.8 * fine
    values = (table[tissues] + grain[tissues] * field).mean(1).reshape(3, size, size)
    shown = keep[tissues].mean(1).reshape(3, size, size) >= 0.5
    if not stripped:
        height = cut.points[:, 0, 2].reshape(3, size, size)
        shown &= (height >= box[2, 0]) & (height <= box[2, 1])
    within = BRAIN[tissues].mean(1, dtype=np.float32).reshape(3, size, size)
    own = tissues[0, tissues.shape[1] // 2].reshape(size, size)
    brain = INNER[own] & shown[0] if stripped else (within[0] > 0.5) & shown[0]
    brain_spread, _ = standardisation(mean, texture, counts * INNER, kind)
    scene = Scene(values, within * shown, white_matter(r, own, shown[0]), cut)
    scene.scale = float(np.clip(brain_spread / spread, 0.35, 1.2))
    if sick:
        middle = tissues[:, tissues.shape[1] // 2].reshape(3, size, size)
        white = middle == INDEX["white"]
        scene.beside = near_ventricles(middle, 24 / cut.pixel_mm) * white
        mirror = mirrored(cut, head.brain_box) if cut.symmetric else None
        harm(r, scene, DARK[kind], mirror, patterns)
    return scene, shown, brain.astype(np.float32)


def white_matter(r: np.random.Generator, own: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Where small lesions are: in white matter, half of the time mostly beside the ventricles."""
    white = np.isin(own, (INDEX["white"], INDEX["cerebellar_white"])) & shown
    weights = white.astype(np.float32) + 0.1 * BRAIN[own]
    if r.random() < 0.5:
        weights = weights * (0.1 + near_ventricles(own[None], 28)[0])
    return weights


def near_ventricles(tissues: np.ndarray, reach: float) -> np.ndarray:
    """Of tissues (N, S, S), nearness to the ventricles: 1 beside them, falling to 0 in ``reach`` pixels."""
    ventricle = torch.from_numpy((tissues == INDEX["ventricle"]).astype(np.float32))[:, None]
    near = F.max_pool2d(ventricle, 4)
    step = 1 / max(1, round(reach / 4))
    for _ in range(round(1 / step)):  # a distance in steps of four pixels
        near = torch.maximum(near, (F.max_pool2d(near, 3, 1, 1) - step) * (near < 1)).clamp_min(0)
    return F.interpolate(near, tissues.shape[1:], mode="bilinear", align_corners=False)[:, 0].numpy()


def standardisation(
    mean: np.ndarray, texture: np.ndarray, counts: np.ndarray, kind: str
) -> tuple[float, float]:
    """Return standard deviation and mean of a volume's foreground, clipped as its window clips it."""
    if kind == "ct":
        low, high = 0.0, 80.0
    else:
        order = np.argsort(mean)
        share = np.cumsum(counts[order]) / counts.sum()
        low = float(mean[order][np.searchsorted(share, 0.005)])
        top = order[min(np.searchsorted(share, 0.995), len(order) - 1)]
        high = float(mean[top] + texture[top])
    values = np.clip(mean, low, high)
    centre = float((values * counts).sum() / counts.sum())
    variance = float((((values - centre) ** 2 + texture**2 * (kind != "ct")) * counts).sum() / counts.sum())
    return float(np.sqrt(variance)) + 1e-3 * (high - low) + 1e-6, centre


def mirrored(cut: Cut, box: np.ndarray) -> np.ndarray:
    """Return the map (2, 3) from a place in pixels to that of its mirror image about the brain's middle."""
    linear, shift = cut.to_pixel[:, :3], cut.to_pixel[:, 3]
    # Columns run along x, whichever way: a small turn of the head is part of how unlike twins are.
    middle = linear @ np.array([box[0].mean(), cut.centre[1], cut.centre[2]]) + shift
    axis = linear[:, 0] / np.linalg.norm(linear[:, 0])
    reflect = np.eye(2) - 2 * np.outer(axis, axis)
    return np.column_stack([reflect, middle - reflect @ middle])


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
