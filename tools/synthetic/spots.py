"""Lesions in three neighbouring slices: ellipsoids with ragged borders, measured in millimetres.

Intensities are in standard deviations of the volume, so that a lesion is as conspicuous in CT as in MR.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from synthetic.planes import Cut, smooth_field

DARKEST = -2.6  # lesions are never as dark as the air around
LEAST_CHANGE = 0.35  # of a pixel that counts as lesion, in standard deviations
PATTERN_SHARES = (0.30, 0.32, 0.12, 0.12, 0.14)  # large, small, middle, mixed, enhancing


@dataclass
class Scene:
    """Three slices under way: own, below and above.

    Attributes:
        grey: float32 (3, S, S), in standard deviations of the volume.
        inside: float32 (3, S, S) in [0, 1], where lesions may show.
        small: float32 (S, S), weights of the centres of small lesions in the own slice.
        cut: where the slices lie.
        scale: standard deviation of the place of lesions, in those of the volume: beside bright fat, all that
            happens in a brain is faint.
        beside: float32 (3, S, S), white matter by its nearness to the ventricles, or None.
        lesions: int16 (S, S), number of the lesion from 1 on, 0 outside.
    """

    grey: np.ndarray
    inside: np.ndarray
    small: np.ndarray
    cut: Cut
    scale: float = 1.0
    beside: np.ndarray | None = None
    lesions: np.ndarray = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.lesions = np.zeros(self.grey.shape[1:], dtype=np.int16)


@dataclass(frozen=True)
class Spot:
    """One lesion.

    Attributes:
        centre: row and column in pixels.
        off: distance of the centre from the own slice, in mm.
        radii: in mm, along two turned axes of the slice and through it.
        angle: of the turned axes.
        contrast: to what is around, in standard deviations.
        soft: width of the border, in radii.
        ring: depth from which on there is a core of another intensity; 0 for none.
        core: contrast of the core.
        swelling: reach of a fainter, more ragged surrounding that is anomalous too, in radii.
        swollen: its contrast.
        flat: share of the former picture that is lost inside.
    """

    centre: tuple[float, float]
    off: float
    radii: tuple[float, float, float]
    angle: float
    contrast: float
    soft: float
    ring: float = 0.0
    core: float = 0.0
    swelling: float = 0.0
    swollen: float = 0.0
    flat: float = 0.5


def paste(r: np.random.Generator, scene: Scene, spot: Spot) -> bool:
    """Pastes a lesion into ``scene``; says whether it shows in the own slice."""
    size, mm = scene.grey.shape[-1], scene.cut.pixel_mm
    reach = max(spot.radii[:2]) * (1.6 + 1.5 * spot.swelling) / mm + 3
    low = np.clip(np.floor(np.array(spot.centre) - reach), 0, size).astype(int)
    high = np.clip(np.ceil(np.array(spot.centre) + reach) + 1, 0, size).astype(int)
    if (high - low < 2).any():
        return False
    window = (slice(low[0], high[0]), slice(low[1], high[1]))
    dy, dx = np.meshgrid(
        (np.arange(low[0], high[0], dtype=np.float32) - spot.centre[0]) * mm,
        (np.arange(low[1], high[1], dtype=np.float32) - spot.centre[1]) * mm,
        indexing="ij",
    )
    cos, sin = np.cos(spot.angle), np.sin(spot.angle)
    p, q = (dx * cos + dy * sin) / spot.radii[0], (dy * cos - dx * sin) / spot.radii[1]
    across = (spot.off - scene.cut.depths) / spot.radii[2]
    distance = np.sqrt(p**2 + q**2 + across.astype(np.float32)[:, None, None] ** 2)
    # One field over twice the patch: lobes and fringes at the lesion's own scale.
    span = max(dy.shape)
    lobes = smooth_field(r, 4, span)[: dy.shape[0], : dy.shape[1]]
    noise = r.uniform(0.04, 0.28) * lobes
    if span > 16 and r.random() < 0.5:
        noise = noise + r.uniform(0, 0.18) * smooth_field(r, 11, span)[: dy.shape[0], : dy.shape[1]]
    depth = 1 - distance + noise * np.clip(distance, 0.3, 1.2)
    inside = scene.inside[(slice(None), *window)]
    soft = max(spot.soft, 0.45 * mm / min(spot.radii[:2]))
    contrast, core, swollen = (scene.scale * c for c in (spot.contrast, spot.core, spot.swollen))
    alpha = _step(depth / soft * 2) * inside
    grey = scene.grey[(slice(None), *window)]
    before = grey[0].copy()
    weight = alpha[0] + 1e-4
    local = float((grey[0] * weight).sum() / weight.sum())
    if spot.swelling:
        wide = depth + spot.swelling * (0.7 + 0.6 * smooth_field(r, 6, span)[: dy.shape[0], : dy.shape[1]])
        spread = _step(wide / 0.12) * inside
        grey += (0.4 * (local - grey) + swollen) * spread
    value = grey + spot.flat * (local - grey) + contrast
    if spot.ring:
        inner = _step((depth - spot.ring) / 0.06)
        value += (local + core - value) * inner
        if r.random() < 0.4:  # compartments
            patch = smooth_field(r, 5, span)[: dy.shape[0], : dy.shape[1]]
            value += 0.6 * contrast * _step((patch - r.uniform(0, 0.8)) / 0.2) * inner
    elif span > 14:
        value += r.uniform(0, 0.25) * contrast * smooth_field(r, 7, span)[: dy.shape[0], : dy.shape[1]]
    value = np.maximum(value, DARKEST)
    grey += (value - grey) * alpha
    marked = alpha[0] > 0.5
    if spot.swelling:
        marked |= spread[0] > 0.5
    # What the eye could not tell from its surroundings teaches nothing but noise.
    shows = np.abs(grey[0] - before) > min(LEAST_CHANGE * scene.scale, 0.5 * abs(contrast))
    if max(spot.radii) > 6:  # but holes in a large lesion belong to it
        shows |= depth[0] > 0.15
    marked &= shows
    if not marked.any():
        return False
    scene.count += 1
    scene.lesions[window][marked] = scene.count
    return True


def _step(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def paste_band(r: np.random.Generator, scene: Scene, contrast: float) -> None:
    """Return changed white matter along the ventricles on both sides, in patches that run together."""
    size = scene.grey.shape[-1]
    ragged = r.uniform(0.05, 0.3) * smooth_field(r, int(r.integers(5, 16)), size)
    ragged += r.uniform(0, 0.35) * smooth_field(r, 4, size)
    depth = scene.beside + ragged * (scene.beside > 0.02) - r.uniform(0.25, 0.8)
    alpha = _step(depth / r.uniform(0.03, 0.15)) * scene.inside * (scene.beside > 0.02)
    change = scene.scale * contrast * (1 + 0.15 * smooth_field(r, 8, size))
    scene.grey += change * alpha
    marked = alpha[0] > 0.5
    if marked.any():
        scene.count += 1
        scene.lesions[marked] = scene.count


def draw_centre(r: np.random.Generator, weights: np.ndarray) -> tuple[float, float] | None:
    """Return a place drawn by weights (S, S); None where there is none."""
    coarse = weights[1::3, 1::3].ravel()
    total = np.cumsum(coarse, dtype=np.float64)
    if total[-1] <= 0:
        return None
    at = int(np.searchsorted(total, r.random() * total[-1], side="right"))
    at = min(at, len(coarse) - 1)
    width = weights[1::3, 1::3].shape[1]
    return at // width * 3 + 1 + r.uniform(-1.5, 1.5), at % width * 3 + 1 + r.uniform(-1.5, 1.5)


def draw_contrast(r: np.random.Generator, least: float, most: float, dark: float) -> float:
    """Return a contrast in standard deviations: mostly faint, negative with chance ``dark``."""
    return (least + (most - least) * r.random() ** 1.4) * (-1 if r.random() < dark else 1)


def large(r: np.random.Generator, scene: Scene, dark: float) -> Spot | None:
    """Draw a tumour, bleed or infarct of 8 to 40 mm radius, often with a core, a ring or swelling."""
    centre = draw_centre(r, scene.inside[0])
    if centre is None:
        return None
    mean = 8 * 5 ** r.random()
    aspect = np.exp(r.normal(0, 0.25))
    contrast = draw_contrast(r, 1.0, 3.8, dark)
    radii = (mean * aspect, mean / aspect, mean * np.exp(r.normal(0, 0.25)))
    ring = r.random() < 0.4
    swelling = r.random() < 0.35
    sign = np.sign(contrast)
    return Spot(
        centre,
        radii[2] * r.uniform(-0.7, 0.7),
        radii,
        r.uniform(0, np.pi),
        contrast,
        r.uniform(0.05, 0.4),
        ring=r.uniform(0.1, 0.55) if ring else 0.0,
        core=contrast * r.uniform(-1.2, 0.6),
        swelling=r.uniform(0.25, 0.9) if swelling else 0.0,
        swollen=sign * (-1 if r.random() < 0.25 else 1) * r.uniform(0.5, 1.6),
        flat=r.uniform(0.2, 1.0),
    )


def enhancing(r: np.random.Generator, scene: Scene) -> Spot | None:
    """Return a tumour as contrast agent shows it.

    A bright wall around a dark core, mostly in faint swelling.
    """
    centre = draw_centre(r, scene.inside[0])
    if centre is None:
        return None
    mean = 7 * 4 ** r.random()
    aspect = np.exp(r.normal(0, 0.2))
    radii = (mean * aspect, mean / aspect, mean * np.exp(r.normal(0, 0.2)))
    return Spot(
        centre,
        radii[2] * r.uniform(-0.7, 0.7),
        radii,
        r.uniform(0, np.pi),
        r.uniform(1.2, 4.5),
        r.uniform(0.04, 0.2),
        ring=float(np.clip(r.uniform(1.5, 6) / mean, 0.06, 0.5)),
        core=-r.uniform(0.2, 1.8),
        swelling=r.uniform(0.3, 1.0) if r.random() < 0.8 else 0.0,
        swollen=r.uniform(0.4, 1.0) * (1 if r.random() < 0.25 else -1),
        flat=r.uniform(0.3, 1.0),
    )


def middle(r: np.random.Generator, scene: Scene, dark: float) -> Spot | None:
    """Return a lesion of 4 to 10 mm radius, a ring in one of four."""
    centre = draw_centre(r, scene.inside[0])
    if centre is None:
        return None
    mean = 4 * 2.5 ** r.random()
    aspect = np.exp(r.normal(0, 0.3))
    radii = (mean * aspect, mean / aspect, mean * np.exp(r.normal(0, 0.3)))
    contrast = draw_contrast(r, 1.2, 4.0, dark)
    return Spot(
        centre,
        radii[2] * r.uniform(-0.6, 0.6),
        radii,
        r.uniform(0, np.pi),
        contrast,
        r.uniform(0.05, 0.5),
        ring=r.uniform(0.2, 0.6) if r.random() < 0.25 else 0.0,
        core=contrast * r.uniform(-0.8, 0.5),
        swelling=r.uniform(0.2, 0.8) if r.random() < 0.15 else 0.0,
        swollen=np.sign(contrast) * r.uniform(0.5, 1.2),
        flat=r.uniform(0.2, 1.0),
    )


def small(r: np.random.Generator, scene: Scene, dark: float, strength: float) -> Spot | None:
    """Return a lesion of 1 to 5 mm radius in white matter, often drawn out as those along veins are."""
    centre = draw_centre(r, scene.small)
    if centre is None:
        return None
    mean = 1.0 * 5 ** r.random()
    aspect = np.exp(r.uniform(0, 0.45))
    radii = (mean * aspect, mean / aspect, mean * np.exp(r.normal(0, 0.3)))
    contrast = strength * r.uniform(0.75, 1.25) * (-1 if r.random() < dark else 1)
    if mean < 2.5:  # smaller ones must stand out more to be there at all
        contrast *= 1.3
    ring = r.uniform(0.35, 0.6) if mean > 2.5 and r.random() < 0.1 else 0.0
    return Spot(
        centre,
        radii[2] * r.uniform(-0.5, 0.5),
        radii,
        r.uniform(0, np.pi),
        contrast,
        r.uniform(0.1, 0.7),
        ring=ring,
        core=contrast * r.uniform(-0.3, 0.5),
        flat=r.uniform(0, 0.8),
    )


def harm(
    r: np.random.Generator,
    scene: Scene,
    dark: float,
    mirror: np.ndarray | None,
    patterns: tuple[float, ...] = PATTERN_SHARES,
) -> None:
    """Give the own slice lesions of patterns: large, many small, few middle, mixed, enhancing.

    Args:
        r: random numbers.
        scene: changed.
        dark: chance of a lesion darker than what is around.
        mirror: affine map (2, 3) of a place in pixels to its place on the other side of the body, or None
            where there is none; then a quarter of the samples have pairs.
        patterns: shares in the order of :data:`PATTERN_SHARES`.
    """
    pattern = r.choice(5, p=patterns)
    spots: list[Spot | None] = []
    if pattern in (0, 3):
        spots += [large(r, scene, dark) for _ in range(1 + (r.random() < 0.2))]
    if pattern == 4:
        spots.append(enhancing(r, scene))
    if pattern in (2, 3) or (pattern == 1 and r.random() < 0.3):
        spots += [middle(r, scene, dark) for _ in range(r.integers(1, 4))]
    if pattern in (1, 3) or r.random() < 0.15:
        number = int(np.ceil(18 * r.random() ** 1.6))
        strength = 1.4 + 2.6 * r.random() ** 1.3
        spots += [small(r, scene, dark, strength) for _ in range(number)]
    if scene.beside is not None and r.random() < (0.3 if pattern == 1 else 0.1):
        paste_band(r, scene, (1.0 + 2.4 * r.random() ** 1.2) * (-1 if r.random() < dark else 1))
    paired = mirror is not None and r.random() < 0.28
    for spot in spots:
        if spot is None:
            continue
        paste(r, scene, spot)
        if paired and r.random() < 0.85:
            row, column = mirror @ np.append(spot.centre, 1.0)
            place = (row + r.normal() * 1.5, column + r.normal() * 1.5)
            radii = tuple(np.array(spot.radii) * np.exp(r.normal(0, 0.15, 3)))
            twin = Spot(**{**vars(spot), "centre": place, "radii": radii, "angle": np.pi - spot.angle})
            paste(r, scene, twin)
