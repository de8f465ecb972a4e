"""Label volumes to arrays, on the grid of their image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.volume_files import is_listed_volume, read_volume, volume_grid

__all__ = [
    "AFFINE_TOLERANCE",
    "grid_of",
    "is_listed_volume",
    "label_values",
    "marks_of",
    "read_label",
    "same_grid",
    "volume_count",
]

AFFINE_TOLERANCE = 1e-2  # mm (of origin) and mm per voxel
NOISE = 0.01  # what resampling and scaling to integers leave of 0, at most


def grid_of(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Return the shape (X, Y, Z) and the affine (4, 4) in mm, from the header alone.

    Raises:
        BadInput: if the file is missing or not readable.
    """
    shape, affine = _header(path)
    x, y, z = (*shape, 1, 1, 1)[:3]
    return (x, y, z), affine


def volume_count(path: Path) -> int:
    """How many volumes a 4D file holds, from the header alone; 1 for a 3D file.

    Raises:
        BadInput: if the file is missing or not readable.
    """
    shape, _ = _header(path)
    return int(np.prod(shape[3:], dtype=int))


def _header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    if not path.is_file():
        raise BadInput(f"{path} is missing; check the data set's folder.")
    return volume_grid(path)


def same_grid(first: Path, second: Path) -> str:
    """Why two volumes are not on the same grid, in words; empty if they are.

    Raises:
        BadInput: if one of the files is not readable.
    """
    (shape, affine), (other_shape, other_affine) = grid_of(first), grid_of(second)
    if shape != other_shape:
        words = [" x ".join(map(str, sizes)) for sizes in (shape, other_shape)]
        return f"it is {words[0]} voxels, its image {words[1]}"
    if not np.allclose(affine, other_affine, rtol=0, atol=AFFINE_TOLERANCE):
        return "its affine is not that of its image"
    return ""


def read_label(path: Path, image: Path, positive: tuple[int, ...] | None) -> np.ndarray:
    """Return a label volume.

    Args:
        path: file of the label, 3D.
        image: the file whose grid it must be on.
        positive: values that count; None for all above 0.

    Returns:
        bool (X, Y, Z).

    Raises:
        BadInput: one of the files cannot be read, the grids differ, or see :func:`marks_of`.
    """
    reason = same_grid(path, image)
    if reason:
        raise BadInput(f"{path} does not fit {image.name}: {reason}; resample it to the image's grid.")
    return marks_of(label_values(path), path, positive)


def label_values(path: Path) -> np.ndarray:
    """Return the values of a label file, float32 (X, Y, Z).

    Raises:
        BadInput: the file cannot be read, or is in colour.
    """
    values = read_volume(path).voxels
    if values.ndim != 3:
        raise BadInput(f"{path} is in colour, which is no label; store one number a voxel.")
    return values


def marks_of(values: np.ndarray, path: Path, positive: tuple[int, ...] | None) -> np.ndarray:
    """Return where a label marks something: its values are rounded first.

    Resampling, and scaling to integers, leave labels at 0 + 1e-6 and 0.9999, which are 0 and 1.

    Args:
        values: of the label, any shape.
        path: its file, for messages.
        positive: values that count; None for all above 0.

    Raises:
        BadInput: NaN or infinite values, or values above 0 that are all rounded to 0 and no noise.
    """
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise BadInput(f"{path} has {bad} NaN or infinite values; a label needs numbers: 0 where nothing is.")
    highest = float(values.max(initial=0))
    if NOISE < highest < 0.5:
        raise BadInput(
            f"{path} holds no label values: its largest is {highest:.4g}; store whole numbers, and 0 where "
            "nothing is."
        )
    whole = np.rint(values)
    return whole > 0 if positive is None else np.isin(whole, positive)
