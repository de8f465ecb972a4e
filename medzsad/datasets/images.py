"""2D images and masks of data sets to arrays. Both go through one reader, so that both are turned alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans import images2d
from medzsad.scans.images2d import SUFFIXES, is_image
from medzsad.scans.library_warnings import heard
from medzsad.scans.pillow import open_picture

__all__ = ["MASK_RULES", "SUFFIXES", "image_size", "is_image", "read_image", "read_mask", "resize_mask"]

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
