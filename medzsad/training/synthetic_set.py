"""A small data set that is made, not read: textures, some with a blob. For trying out that training works."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from medzsad.errors import OutputNotWritable
from medzsad.storage.atomic import sweep

SPLITS = {"test": 0, "train": 1, "valid": 2}
"""Each split has images of its own."""
CLASSES = ("grain", "weave")


def make_synthetic_set(
    folder: Path, count: int, *, split: str = "test", side: int = 96, seed: int = 0
) -> Path:
    """Write images in MVTec layout: two textures, every other image with one bright or dark blob.

    The same arguments give the same pixels, whatever was there before.

    Args:
        folder: where to; what it holds is replaced, unless it holds these images already.
        count: of images.
        split: ``"test"``, ``"train"`` or ``"valid"``: other images each.
        side: height and width in pixels.
        seed: of the images.

    Returns:
        ``folder``.

    Raises:
        OutputNotWritable: if it cannot be written.
    """
    done = folder / f".{count}-{side}-{seed}"
    if done.is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".medzsad-"))
        try:
            for number in range(count):
                _write_one(staging, number, side, np.random.default_rng([seed, SPLITS[split], number]))
            (staging / done.name).touch()
            shutil.rmtree(folder, ignore_errors=True)
            staging.chmod(0o755)  # mkdtemp makes folders private
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise OutputNotWritable(f"{folder}: cannot write images ({error.strerror or error})") from error
    return folder


def _write_one(root: Path, number: int, side: int, dice: np.random.Generator) -> None:
    name = CLASSES[number % 2]
    anomalous = number // 2 % 2 == 1
    image, mask = _texture(name, side, dice), np.zeros((side, side), dtype=bool)
    if anomalous:
        mask = _blob(side, dice)
        strength = dice.uniform(0.25, 0.4) * dice.choice((-1, 1))
        image = image + strength * ndimage.gaussian_filter(mask.astype(np.float32), 1.0)[..., None]
    kind = "blob" if anomalous else "good"
    _save((255 * image.clip(0, 1)).astype(np.uint8), root / name / "test" / kind / f"{number:03d}.png")
    if anomalous:
        _save((255 * mask).astype(np.uint8), root / name / "ground_truth" / kind / f"{number:03d}_mask.png")


def _texture(name: str, side: int, dice: np.random.Generator) -> np.ndarray:
    """float32 (side, side, 3) around 0.5."""
    if name == "weave":
        rows, columns = np.mgrid[:side, :side] / side
        waves = dice.uniform(6, 9)
        pattern = np.sin(2 * np.pi * waves * rows) * np.sin(2 * np.pi * waves * columns + dice.uniform(0, 6))
    else:
        pattern = ndimage.gaussian_filter(dice.standard_normal((side, side)), dice.uniform(1.5, 2.5))
        pattern = pattern / pattern.std()
    tint = dice.uniform(0.35, 0.6, 3)
    return (tint + 0.06 * pattern[..., None]).astype(np.float32)


def _blob(side: int, dice: np.random.Generator) -> np.ndarray:
    """Return bool (side, side): an ellipse, wholly inside."""
    radii = dice.uniform(0.08, 0.18, 2) * side
    centre = dice.uniform(0.25, 0.75, 2) * side
    turn = dice.uniform(0, np.pi)
    y, x = np.mgrid[:side, :side] - centre[:, None, None]
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
