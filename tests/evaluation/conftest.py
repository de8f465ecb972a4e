"""Small data sets on disk whose right answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medzsad.datasets.opening import open_dataset
from medzsad.datasets.samples import SampleSet
from medzsad.detectors.references import Brightness


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def blob_image(
    rng: np.random.Generator, shape: tuple[int, int], *, anomalous: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A noisy grey image, with a bright square if anomalous, and the square's mask."""
    image = rng.integers(60, 100, shape).astype(np.uint8)
    mask = np.zeros(shape, np.uint8)
    if anomalous:
        side = int(rng.integers(6, 12))
        row, column = (int(rng.integers(2, length - side - 2)) for length in shape)
        image[row : row + side, column : column + side] = 200
        mask[row : row + side, column : column + side] = 255
    return image, mask


@pytest.fixture
def blobs_root(tmp_path: Path) -> Path:
    """Two classes in MVTec layout, 4 normal and 5 anomalous images each, of two sizes."""
    rng = np.random.default_rng(0)
    root = tmp_path / "blobs"
    for name in ("bottle", "cable"):
        for number in range(9):
            shape = (40, 40) if number % 2 else (40, 48)
            image, mask = blob_image(rng, shape, anomalous=number >= 4)
            kind = "bright" if number >= 4 else "good"
            write_image(root / name / "test" / kind / f"{number:03}.png", image)
            if number >= 4:
                write_image(root / name / "ground_truth" / kind / f"{number:03}_mask.png", mask)
    return root


@pytest.fixture
def blobs(blobs_root: Path) -> SampleSet:
    return open_dataset("mvtec", blobs_root)


@pytest.fixture
def volumes_root(tmp_path: Path) -> Path:
    """Three cases in folders: two with bright boxes (one of them with two), one healthy."""
    import nibabel

    rng = np.random.default_rng(1)
    root = tmp_path / "volumes"
    for number, boxes in enumerate([[(6, 6, 5)], [(5, 14, 6), (14, 6, 4)], []]):
        image = np.zeros((24, 22, 12), np.float32)
        image[2:22, 2:20, 1:11] = 100 + 5 * rng.standard_normal((20, 18, 10))
        label = np.zeros(image.shape, np.uint8)
        for x, y, z in boxes:
            box = (slice(x, x + 4), slice(y, y + 4), slice(z, z + 3))
            image[box] += 150
            label[box] = 2
        case = root / f"case{number}"
        case.mkdir(parents=True)
        affine = np.diag([2.0, 2.0, 3.0, 1.0])
        nibabel.Nifti1Image(image, affine).to_filename(case / "flair.nii.gz")
        nibabel.Nifti1Image(label, affine).to_filename(case / "seg.nii.gz")
    return root


@pytest.fixture
def volumes(volumes_root: Path) -> SampleSet:
    return open_dataset("volumes", volumes_root)


@pytest.fixture
def brightness() -> Brightness:
    return Brightness().eval()
