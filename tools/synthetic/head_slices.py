"""Slices of anatomical label maps with tissues of random intensity, with and without lesions."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from synthetic.heads import BRAIN, INDEX, INNER, KIND_SHARES, KINDS, Head, draw_tissues
from synthetic.planes import Cut, draw_cut, nearest, smooth_field
from synthetic.spots import PATTERN_SHARES, Scene, harm
from synthetic.volumes import PLANES

STRIPPED, STRIPPED_CT = 0.55, 0.15  # share of heads of which the brain alone is shown
LOWER_END = 20  # of the brain, in slices of 1 mm
FULL = 0.85  # share of whole heads that keep their lesions: most of a head is normal
DARK = {"random": 0.4, "flair": 0.06, "t1": 0.6, "t2": 0.08, "ct": 0.5}


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
