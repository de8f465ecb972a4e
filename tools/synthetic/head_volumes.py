"""Whole volumes made from anatomical label maps, with and without lesions: what a volume score is judged on.

Tissues get random intensities as for training (:mod:`synthetic.heads`); the volume has the texture, blur,
bias field, noise and slice thickness of a scan. Lesions are drawn in three dimensions, unlike those of
:mod:`synthetic.spots`, which the detector is trained on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from medzsad.scans.scan import Modality
from synthetic.heads import BRAIN, INNER, KIND_SHARES, KINDS, Head, draw_tissues

IN_PLANE_MM = 2
SLICES_MM = (3, 4, 5)
LESIONS_ML = (0.1, 20.0)
STRIPPED = 0.4  # share of MR volumes of which the brain alone is shown


class HeadVolume(NamedTuple):
    """A made volume and its twin.

    Attributes:
        normal: float32 (X, Y, Z), without lesions.
        sick: the same head with lesions.
        lesions: bool (X, Y, Z).
        brain: bool (X, Y, Z); of a stripped head all that is left.
        affine: float64 (4, 4), voxel to mm, RAS+.
        modality: that it looks like.
        lesions_ml: volume of all lesions together.
    """

    normal: np.ndarray
    sick: np.ndarray
    lesions: np.ndarray
    brain: np.ndarray
    affine: np.ndarray
    modality: Modality
    lesions_ml: float


def draw_head_volume(r: np.random.Generator, heads: list[Head]) -> HeadVolume:
    """Draw a head, its contrast and its lesions: one to three of 0.1 to 20 mL together, in the brain.

    Args:
        r: random numbers; all that is drawn comes from them.
        heads: of :func:`synthetic.heads.load_heads`.
    """
    head = heads[int(r.integers(len(heads)))]
    kind = KINDS[int(r.choice(len(KINDS), p=KIND_SHARES))]
    is_ct, thick = kind == "ct", int(r.choice(SLICES_MM))
    tissues = head.tissues[:: int(r.choice([-1, 1])) * IN_PLANE_MM, ::IN_PLANE_MM]
    tissues = tissues[..., : tissues.shape[2] // thick * thick]
    mean, texture = (values.astype(np.float32) for values in draw_tissues(r, kind))
    grain = ndimage.gaussian_filter(r.standard_normal(tissues.shape, dtype=np.float32), r.uniform(0.2, 1.5))
    grey = mean[tissues] + texture[tissues] * grain / grain.std()
    stripped = r.random() < STRIPPED and not is_ct
    shown = (INNER if stripped else np.arange(len(INNER)) > 0)[tissues]
    grey[~shown] = mean[0]
    deviation = float(grey[BRAIN[tissues]].std())
    change, lesions = draw_lesions(r, BRAIN[tissues], np.array([IN_PLANE_MM, IN_PLANE_MM, 1.0]), deviation)
    bias = 1.0 if is_ct else np.exp(r.uniform(0, 0.12) * _smooth(r, tissues.shape))
    noise = (
        r.uniform(0.01, 0.12) * deviation * r.standard_normal((*tissues.shape[:2], tissues.shape[2] // thick))
    )
    inside = _thick(shown.astype(np.float32), thick) > 0.5
    normal, sick = (
        (_thick(ndimage.gaussian_filter(values * bias, (0.5, 0.5, 0)), thick) + noise * inside).astype(
            np.float32
        )
        for values in (grey, grey + change)
    )
    return HeadVolume(
        normal,
        sick,
        _thick(lesions.astype(np.float32), thick) > 0.5,
        _thick((INNER if stripped else BRAIN)[tissues].astype(np.float32), thick) > 0.5,
        np.diag([IN_PLANE_MM, IN_PLANE_MM, thick, 1.0]),
        Modality.CT if is_ct else Modality.MR,
        float(lesions.sum()) * IN_PLANE_MM**2 / 1000,
    )


def draw_lesions(
    r: np.random.Generator, brain: np.ndarray, spacing: np.ndarray, deviation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw lesions: what they add to the intensities, float32 (X, Y, Z), and where they are, bool.

    Args:
        r: random numbers.
        brain: bool (X, Y, Z), where they may be.
        spacing: of the voxels in mm.
        deviation: of the brain's intensities, that contrasts are measured in.
    """
    change, marked = np.zeros(brain.shape, np.float32), np.zeros(brain.shape, bool)
    parts = r.dirichlet(np.ones(r.integers(1, 4))) * 1000 * LESIONS_ML[0]
    parts *= (LESIONS_ML[1] / LESIONS_ML[0]) ** r.random()
    places = np.argwhere(ndimage.binary_erosion(brain, iterations=2))
    contrast = deviation * r.uniform(1.0, 3.5) * r.choice([-1, 1], p=[0.35, 0.65])
    for mm3 in np.maximum(parts, 50.0):
        centre = places[r.integers(len(places))]
        radii = np.cbrt(mm3 * 3 / (4 * np.pi)) * np.exp(r.normal(0, 0.2, 3))
        reach = np.ceil(1.8 * radii.max() / spacing + 1).astype(int)
        low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, brain.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        offset = np.stack(np.meshgrid(*(np.arange(n) for n in high - low), indexing="ij"), -1) - (
            centre - low
        )
        local = (offset * spacing) @ np.linalg.qr(r.normal(size=(3, 3)))[0] / radii
        depth = 1 - np.sqrt((local**2).sum(-1)) + 0.15 * _smooth(r, local.shape[:3])
        inside = brain[box] / (1 + np.exp(-np.clip(4 * depth / r.uniform(0.05, 0.4), -30, 30)))
        change[box] = np.where(
            np.abs(change[box]) > np.abs(contrast * inside), change[box], contrast * inside
        )
        marked[box] |= inside > 0.5
    return change, marked


def _smooth(r: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth noise of about unit variance, a few bumps along each axis, float32."""
    knots = 1.5 * r.standard_normal((4, 4, 4)).astype(np.float32)
    return ndimage.zoom(knots, np.array(shape) / 4, order=1, grid_mode=True, mode="nearest")


def _thick(values: np.ndarray, slices: int) -> np.ndarray:
    """Return the mean of each so many slices of 1 mm: (X, Y, Z) to (X, Y, Z / slices)."""
    return values.reshape(*values.shape[:2], -1, slices).mean(-1)
