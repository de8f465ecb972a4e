"""Label volumes to arrays, on the grid of their image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.nifti import is_nifti, read_nifti

__all__ = ["AFFINE_TOLERANCE", "grid_of", "is_nifti", "read_label", "same_grid", "volume_count"]

AFFINE_TOLERANCE = 1e-2  # mm (of origin) and mm per voxel


def grid_of(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape (X, Y, Z) and affine (4, 4) in the file's own unit, from the header alone.

    Raises:
        BadInput: if the file is not readable NIfTI.
    """
    shape, affine = _header(path)
    return (*shape, 1, 1, 1)[:3], affine


def volume_count(path: Path) -> int:
    """How many volumes a 4D file holds, from the header alone; 1 for a 3D file.

    Raises:
        BadInput: if the file is not readable NIfTI.
    """
    shape, _ = _header(path)
    return int(np.prod(shape[3:], dtype=int))


def _header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image = nibabel.load(path)
        return image.shape, np.array(image.affine, dtype=np.float64)
    except (OSError, ImageFileError, HeaderDataError, ValueError, EOFError) as error:
        raise BadInput(f"{path} is missing or not readable as NIfTI; check that it is complete.") from error


def same_grid(first: Path, second: Path) -> str:
    """Why two volumes are not on the same grid, in words; empty if they are.

    Raises:
        BadInput: if one of the files is not readable NIfTI.
    """
    (shape, affine), (other_shape, other_affine) = grid_of(first), grid_of(second)
    if shape != other_shape:
        words = [" x ".join(map(str, sizes)) for sizes in (shape, other_shape)]
        return f"it is {words[0]} voxels, its image {words[1]}"
    if not np.allclose(affine, other_affine, rtol=0, atol=AFFINE_TOLERANCE):
        return "its affine is not that of its image"
    return ""


def read_label(path: Path, image: Path, positive: tuple[int, ...] | None) -> np.ndarray:
    """A label volume.

    Args:
        path: NIfTI file, 3D.
        image: the file whose grid it must be on.
        positive: values that count; None for all above 0.

    Returns:
        bool (X, Y, Z).

    Raises:
        BadInput: one of the files cannot be read, or the grids differ.
    """
    reason = same_grid(path, image)
    if reason:
        raise BadInput(f"{path} does not fit {image.name}: {reason}; resample it to the image's grid.")
    values = read_nifti(path).voxels
    if positive is None:
        return values > 0
    return np.isin(np.rint(values), positive)
