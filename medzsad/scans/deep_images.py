"""Images that Pillow cannot read, or would cut to 8 bits: several channels of 16 bits, and odd TIFFs.

PNGs go through torchvision and TIFFs through tifffile, both of which other parts of medzsad bring along.
tifffile needs a further library for some compressions; ITK stands in there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from medzsad.errors import BadInput
from medzsad.limits import check_limit, check_packed

if TYPE_CHECKING:
    import tifffile

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # TIFF's photometric interpretations


def read_deep_png(path: Path) -> np.ndarray:
    """Read a PNG with several channels of 16 bits.

    Returns:
        uint16 (rows, columns), or (rows, columns, 3); alpha is dropped.

    Raises:
        BadInput: cut short or damaged.
    """
    from torchvision.io import ImageReadMode, decode_image, read_file

    try:
        pixels = decode_image(read_file(str(path)), ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    except RuntimeError as error:
        raise BadInput(f"{path} is cut short or damaged; copy or export it again.") from error
    return without_alpha(pixels)


def read_deep_tiff(path: Path) -> np.ndarray:
    """Read a TIFF of one page, grey or RGB, of any depth and number type.

    Returns:
        (rows, columns), or (rows, columns, 3), of the file's number type; white is high, alpha is dropped,
        and the orientation applied.

    Raises:
        BadInput: not a TIFF, cut short, several pages, or of a kind that is not read.
    """
    import tifffile

    from medzsad.scans.images2d import ORIENTATION, turned, turned_over

    try:
        with tifffile.TiffFile(path) as file:
            pages = [page for page in file.pages if not getattr(page, "subfiletype", 0) & 0b101]
            if len(pages) != 1:
                raise BadInput(
                    f"{path} holds {len(pages)} pages; save one page, or the stack as NIfTI, and try again."
                )
            page = cast(tifffile.TiffPage, file.pages[pages[0].index])  # whole, as it is not cached
            kind = int(page.photometric)
            if page.ndim > 3 or kind not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
                raise BadInput(f"{path} is a TIFF of a kind that is not read; save it as grey or RGB.")
            check_limit(page.imagewidth * page.imagelength, "MEDZSAD_MAX_PIXELS", path, "pixels")
            check_packed(path, page.nbytes)
            pixels = _page_pixels(page, path)
            orientation = page.tags.valueof(ORIENTATION, 1)
            bits = int(page.bitspersample)
            if pixels.ndim not in (2, 3) or not pixels.size:
                raise BadInput(f"{path} holds no pixels; export it again.")
    except BadInput:
        raise
    except Exception as error:  # tifffile raises whatever its parser stumbles over
        raise BadInput(f"{path} is not a readable image; check that it is complete.") from error
    pixels = turned(without_alpha(pixels), int(orientation))
    return turned_over(pixels, bits) if kind == WHITE_IS_ZERO else pixels


def without_alpha(pixels: np.ndarray) -> np.ndarray:
    """(rows, columns), or (rows, columns, 3), of (rows, columns[, 1 to 4 channels])."""
    if pixels.ndim == 2:
        return pixels
    return pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]


def _page_pixels(page: tifffile.TiffPage, path: Path) -> np.ndarray:
    """(rows, columns[, channels])."""
    try:
        pixels = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        import SimpleITK

        SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            pixels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="TIFFImageIO"))
        except RuntimeError as reason:
            raise ValueError(str(reason)) from reason
        if pixels.dtype != page.dtype or pixels.shape[:2] != (page.imagelength, page.imagewidth):
            raise BadInput(f"{path} has a compression that is not read; save it without.") from error
        return pixels
    return np.moveaxis(pixels, 0, -1) if page.axes.startswith("S") else pixels
