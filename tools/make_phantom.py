"""Makes the example scan: a synthetic head with one lesion, and the lesion's mask.

    python tools/make_phantom.py examples

The volume looks like a FLAIR image of 2 x 2 x 3 mm: scalp, dark skull, dark fluid, folded grey and white
matter, ventricles, a bias field, noise, and a bright lesion with an irregular border in the right hemisphere.
Seeded: the same files every time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

SHAPE = (96, 112, 56)
SPACING = (2.0, 2.0, 3.0)
SEED = 2026


def ellipsoid(grid: np.ndarray, center: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Signed distance-like field (mm from the surface, negative inside)."""
    scaled = [(axis - c) / r for axis, c, r in zip(grid, center, radii, strict=True)]
    return (np.sqrt(sum(axis**2 for axis in scaled)) - 1) * min(radii)


def smooth_noise(rng: np.random.Generator, sigma_mm: float) -> np.ndarray:
    """Unit-variance noise, smooth over ``sigma_mm``."""
    noise = gaussian_filter(rng.standard_normal(SHAPE), [sigma_mm / s for s in SPACING])
    return noise / noise.std()


def soft(distance: np.ndarray, width_mm: float = 1.5) -> np.ndarray:
    """1 inside, 0 outside, over ``width_mm``."""
    return 1 / (1 + np.exp(np.clip(distance / width_mm * 2, -30, 30)))


def make_phantom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the head (int16, about 0 to 900), its lesion (uint8) and the affine (RAS+, mm)."""
    rng = np.random.default_rng(SEED)
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(SHAPE, SPACING, strict=True)]
    x, y, z = grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")) * np.array(
        SPACING
    ).reshape(3, 1, 1, 1) + affine[:3, 3].reshape(3, 1, 1, 1)

    wobble = smooth_noise(rng, 18) * 1.2
    head = ellipsoid(grid, (0, 0, -4), (80, 98, 80)) + wobble
    skull = ellipsoid(grid, (0, 0, -4), (74, 92, 74)) + wobble
    fluid = ellipsoid(grid, (0, 0, -4), (68, 86, 68)) + wobble
    folds = np.abs(smooth_noise(rng, 5)) * 4.0
    brain = ellipsoid(grid, (0, 0, -4), (65, 83, 65)) + wobble + np.maximum(0, 3.2 - folds) * 0.9
    white = ellipsoid(grid, (0, 0, -4), (56, 73, 56)) + wobble + smooth_noise(rng, 6) * 5 + (3.5 - folds)
    fissure = np.abs(x + smooth_noise(rng, 14)) - 1.2
    ventricles = np.minimum(
        ellipsoid(grid, (11, 2, 6), (6, 26, 11)), ellipsoid(grid, (-11, 2, 6), (6, 26, 11))
    ) + 1.0 * smooth_noise(rng, 8)
    nuclei = np.minimum(ellipsoid(grid, (22, 4, -6), (8, 17, 10)), ellipsoid(grid, (-22, 4, -6), (8, 17, 10)))
    eyes = np.minimum(
        ellipsoid(grid, (30, 82, -44), (12, 12, 12)), ellipsoid(grid, (-30, 82, -44), (12, 12, 12))
    )

    image = 420 * soft(head) * (1 + 0.15 * smooth_noise(rng, 6))
    for distance, value in (
        (skull, 60),
        (fluid, 90),
        (brain, 400),
        (white, 310),
        (nuclei, 385),
        (ventricles, 70),
        (eyes, 100),
    ):
        weight = soft(distance)
        image = image * (1 - weight) + value * weight
    gap = soft(fissure) * soft(brain) * soft(-(ellipsoid(grid, (0, 0, -4), (65, 60, 36))))
    image = image * (1 - gap) + 95 * gap

    lesion = ellipsoid(grid, (34, 26, 18), (15, 17, 14)) + 2.2 * smooth_noise(rng, 6)
    core = ellipsoid(grid, (35, 27, 18), (6, 7, 6)) + 1.5 * smooth_noise(rng, 5)
    weight = soft(lesion, 2.5) * soft(brain) * (1 - soft(ventricles))
    image = image * (1 - weight) + (600 + 35 * smooth_noise(rng, 4)) * weight
    weight = soft(core, 2.0)
    image = image * (1 - weight) + 470 * weight

    image *= 1 + 0.08 * smooth_noise(rng, 60) + 0.0008 * (y + z)
    image = gaussian_filter(image, 0.4)
    noisy = np.hypot(image + rng.standard_normal(SHAPE) * 8, rng.standard_normal(SHAPE) * 8)
    mask = (lesion < 0) & (brain < 0) & (ventricles > 0)
    return np.round(noisy).astype(np.int16), mask.astype(np.uint8), affine


def main() -> None:
    """Write ``head_phantom.nii.gz`` and ``head_phantom_lesion.nii.gz`` to the folder given."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    head, lesion, affine = make_phantom()
    for name, voxels in (("head_phantom", head), ("head_phantom_lesion", lesion)):
        image = nibabel.Nifti1Image(voxels, affine)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, folder / f"{name}.nii.gz")


if __name__ == "__main__":
    main()
