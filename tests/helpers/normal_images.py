"""Made images that are all but alike, a texture; with a blob where they are not normal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

BLOB = (slice(20, 36), slice(30, 46))


def texture(seed: int, side: int = 64) -> np.ndarray:
    """Return crossed waves at a random place with a little noise, float64 (side, side), 0 to 255."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] * 2 * np.pi / 8
    phases = rng.uniform(0, 2 * np.pi, 2)
    return (
        120 + 30 * np.sin(rows + phases[0]) + 30 * np.sin(columns + phases[1]) + rng.normal(0, 4, rows.shape)
    )


def with_blob(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with a smooth patch in it, as bright as the rest, and where it is, bool."""
    image, mask = image.copy(), np.zeros(image.shape, bool)
    image[BLOB] = 120 + 0.1 * (image[BLOB] - 120)
    mask[BLOB] = True
    return image, mask


def save(path: Path, image: np.ndarray) -> Path:
    """Write an image, 0 to 255, as PNG, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return path


def save_volume(path: Path, seed: int, *, blob: bool = False, slices: int = 4) -> Path:
    """Write a volume of textures as NIfTI, with the blob in its middle slices, and return its path."""
    import nibabel

    images = [texture(seed * 100 + number, 48) for number in range(slices)]
    if blob:
        images[1:-1] = [with_blob(image)[0] for image in images[1:-1]]
    voxels = np.stack(images, axis=-1).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])).to_filename(path)
    return path
