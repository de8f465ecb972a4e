"""Images and masks, and volumes with their labels, of data sets to arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans import images2d
from medzsad.scans.files import read_volume, volume_grid
from medzsad.scans.images2d import open_picture
from medzsad.scans.library_warnings import heard

MASK_RULES = ("published", "half")
PILLOW_GREY = np.array([19595, 38470, 7471], dtype=np.float64)
LOSSY = (".jpg", ".jpeg")
NEAR = 16  # how far compression moves the black and the white of a mask, at most, away from its borders
FEW_VALUES = 8  # a mask with more different grey levels is a blurred one, not one of several classes


def read_image(path: str | Path) -> np.ndarray:
    """Return an image as detectors take it.

    8-bit images are divided by 255, as in the published evaluations, and colours of 16 bits by 65535. Grey
    levels of more than 8 bits have no agreed white: they are stretched from their own minimum to their own
    maximum. EXIF orientation is applied, palettes become colours, alpha is dropped, grey fills three
    channels.

    Returns:
        float32 (3, H, W) in [0, 1], contiguous.

    Raises:
        BadInput: missing, not an image, cut short, several pages, or NaN among its pixels.
    """
    pixels, white = _pixels(Path(path))
    if white is not None:
        pixels = pixels / np.float32(white)
    else:
        low, high = pixels.min(), pixels.max()
        if not np.isfinite(low + high):
            raise BadInput(f"{path} has NaN or infinite pixels; export it again.")
        pixels = (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    if pixels.ndim == 2:
        return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape)))
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def read_mask(path: str | Path, rule: str = "half") -> np.ndarray:
    """Return what a mask marks as anomalous.

    Args:
        path: its file.
        rule: ``"half"``: masks with class numbers or 0 and 1 (VisA) mark whatever is not 0; those that JPEG
            compression or resizing went over, which leaves greys around black and white, are cut at half of
            white; colours count as their brightest channel. ``"published"``: whatever is not black once the
            file is grey, as the loaders of AnomalyCLIP and AdaCLIP read masks.

    Returns:
        bool (H, W).

    Raises:
        BadInput: as for :func:`read_image`.
    """
    path = Path(path)
    pixels, white = _pixels(path)
    if rule == "published":
        if pixels.ndim == 2:
            return pixels > 0.5
        # The grey of Pillow's convert("L"), which rounds: 0.3 R + 0.59 G + 0.11 B in 16 bits.
        return pixels @ PILLOW_GREY * (255 / (white or 255)) >= 1 << 15
    values = pixels.max(axis=-1) if pixels.ndim == 3 else pixels
    white = white or 65535
    if path.suffix.lower() in LOSSY or _is_blurred(values, white):
        return values >= (white + 1) / 2
    return values > 0.5  # resampling and scaling leave 0 at 1e-6 in float images


def resize_mask(mask: np.ndarray, size: int, rule: str = "half") -> np.ndarray:
    """Return a mask at another size.

    Args:
        mask: bool (H, W).
        size: side of the square wanted, in pixels.
        rule: ``"half"``: the nearest pixel's value. ``"published"``: Pillow's bilinear filter, which takes
            means where it shrinks, and more than half of white, as in the loaders of AnomalyCLIP and AdaCLIP.

    Returns:
        bool (size, size).
    """
    if mask.shape == (size, size):
        return mask
    if rule == "published":
        from PIL import Image

        white = Image.fromarray(mask.astype(np.uint8) * 255)
        return np.asarray(white.resize((size, size), Image.Resampling.BILINEAR)) > 127
    rows, columns = (((np.arange(size) + 0.5) * length / size).astype(int) for length in mask.shape)
    return mask[rows[:, None], columns]


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width as :func:`read_image` gives them, from the header alone.

    Raises:
        BadInput: missing or not an image.
    """
    from PIL import UnidentifiedImageError

    try:
        with heard(), open_picture(path) as image:
            tags = getattr(image, "tag_v2", {})  # of TIFFs: some versions of Pillow turn their size already
            width, height = tags.get(256, image.size[0]), tags.get(257, image.size[1])
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientation by 90 degrees
    except UnidentifiedImageError:  # a TIFF that Pillow does not know, or no image
        columns, rows, _ = images2d.read_image(Path(path)).shape
        return rows, columns
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{path} is not a readable image; check that it is complete.") from error
    return (width, height) if turned else (height, width)


def _is_blurred(values: np.ndarray, white: int) -> bool:
    """Whether a losslessly stored mask once was black and white, and got greys on its way."""
    if values.max() < white / 2:
        return False  # class numbers
    levels = np.unique(values)
    if len(levels) <= 2:
        return False
    return bool(((levels < NEAR) | (levels > white - NEAR)).all()) or len(levels) > FEW_VALUES


def _pixels(path: Path) -> tuple[np.ndarray, int | None]:
    """float32 (H, W) or (H, W, 3), and the level of white; None where there is no agreed one."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist; check the data set's folder.")
    scan = images2d.read_image(path)
    return scan.voxels[:, :, 0].swapaxes(0, 1), scan.details.get("range", (0, None))[1]


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
