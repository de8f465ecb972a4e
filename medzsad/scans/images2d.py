"""PNG, JPEG, TIFF and BMP images to scans of one slice.

Pillow is called directly: MONAI's ``PILReader`` ignores EXIF orientation, palettes and alpha. What Pillow
would cut to 8 bits (several channels of 16) goes through :mod:`medzsad.scans.deep_images`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.affines import display_affine
from medzsad.scans.library_warnings import heard
from medzsad.scans.pillow import open_picture
from medzsad.scans.scan import Modality, Scan

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
PHOTOMETRIC, SUBFILE, BITS = 262, 254, 258  # TIFF tags
WHITE_IS_ZERO = 0
ORIENTATION = 274  # EXIF's and TIFF's


def is_image(path: Path) -> bool:
    """Whether the file name is that of a 2D image."""
    return path.suffix.lower() in SUFFIXES


def read_image(path: Path) -> Scan:
    """Read a 2D image; grey levels of 16 bits or floats, and colours of 16 bits, are kept as they are.

    EXIF orientation is applied, palettes become colours, alpha is dropped, and colour images whose three
    channels are equal become grey. TIFFs whose white is zero are turned over. Of a camera's JPEG with
    previews (MPO), and a TIFF with thumbnails, the image itself is read.

    Returns:
        (X, Y, 1) or (X, Y, 1, 3) with X the columns, modality RGB or GREY, no geometry.
        ``details["range"]`` is ``[0, 255]`` where the file held 8 bits a channel, and ``[0, 65535]`` for
        colours of 16 bits.

    Raises:
        BadInput: not an image, cut short, several pages, or colours of a kind that is not read.
    """
    from PIL import UnidentifiedImageError

    notes: list[str] = []
    try:
        with heard("tifffile") as warnings, open_picture(path) as image:
            if 0 in image.size:
                raise BadInput(f"{path} holds no pixels; export it again.")
            _choose_page(image, path, notes)
            mode = image.mode
            pixels = _pixels(image, path)
    except UnidentifiedImageError as error:
        from medzsad.scans.deep_images import read_deep_tiff

        if path.suffix.lower() not in (".tif", ".tiff"):
            raise BadInput(f"{path} is not a readable image; check that it is complete.") from error
        with heard("tifffile") as warnings:
            pixels, mode = _grey_if_equal(read_deep_tiff(path)), "deep TIFF"
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"{path} is cut short or damaged; copy or export it again.") from error

    colour = pixels.ndim == 3
    voxels = pixels.swapaxes(0, 1)[:, :, None].astype(np.float32)
    details: dict[str, object] = {"format": path.suffix.lower().lstrip("."), "stored_type": mode}
    if pixels.dtype == np.uint8:
        details["range"] = [0, 255]
    elif colour and pixels.dtype == np.uint16:
        details["range"] = [0, 65535]
    return Scan(
        voxels=voxels,
        affine=display_affine(),
        modality=Modality.RGB if colour else Modality.GREY,
        modality_source="guessed",
        name=path.stem,
        source=path,
        is_2d=True,
        has_geometry=False,
        notes=(*notes, *warnings),
        details=details,
    )


def _choose_page(image: Image.Image, path: Path, notes: list[str]) -> None:
    """Go to the one page that is the image; previews, thumbnails and masks are none.

    Raises:
        BadInput: several pages are images.
    """
    pages = getattr(image, "n_frames", 1)
    if pages == 1:
        return
    whole = [0]
    if image.format == "TIFF":
        whole = []
        for page in range(pages):
            image.seek(page)
            if not int(getattr(image, "tag_v2", {}).get(SUBFILE, 0)) & 0b101:  # of reduced size, or a mask
                whole.append(page)
    elif image.format != "MPO":
        whole = list(range(pages))
    if len(whole) != 1:
        raise BadInput(f"{path} holds {pages} pages; save one page, or the stack as NIfTI, and try again.")
    image.seek(whole[0])
    notes.append(f"The file holds {pages} pictures, the others previews: the image itself was read.")


def _pixels(image: Image.Image, path: Path) -> np.ndarray:
    """(rows, columns) or (rows, columns, 3), turned as EXIF says."""
    from PIL import ImageOps

    from medzsad.scans.deep_images import read_deep_png, read_deep_tiff

    tags = getattr(image, "tag_v2", {})  # read before the pixels: then Pillow drops them
    white_is_zero = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    depth = tags.get(BITS, (8,))
    tiles = str(getattr(image, "tile", ""))
    if image.format == "PNG" and ";16" in tiles and image.mode in ("RGB", "RGBA", "LA"):
        return _grey_if_equal(turned(read_deep_png(path), image.getexif().get(ORIENTATION, 1)))
    if len(depth) > 1 and max(depth) > 8 and image.mode in ("RGB", "RGBA", "RGBX"):
        return _grey_if_equal(read_deep_tiff(path))
    image = ImageOps.exif_transpose(image)
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("LA", "La"):
        image = image.getchannel("L")
    elif image.mode not in ("L", "RGB") and not image.mode.startswith(("I", "F")):
        try:
            image = image.convert("RGB")
        except ValueError as error:
            raise BadInput(
                f"{path} has colours of a kind that is not read ({image.mode}); save it as RGB."
            ) from error
    pixels = np.asarray(image)
    if white_is_zero and image.mode.startswith(("I", "F")):  # what Pillow does to 8 bits and less
        pixels = turned_over(pixels, depth[0])
    return _grey_if_equal(pixels)


def _grey_if_equal(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 3 and (pixels[..., :1] == pixels[..., 1:]).all():
        return pixels[..., 0]
    return pixels


def turned_over(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Grey levels whose white is zero as levels whose black is: the largest becomes 0.

    Args:
        pixels: of any type; of floats, which have no largest level, the range stays.
        bits: that the file stores; 12 may lie in 16.
    """
    if pixels.dtype.kind == "f":
        return pixels.min() + pixels.max() - pixels
    ends = -1 if pixels.dtype.kind == "i" and pixels.min() < 0 else 2**bits - 1  # lowest plus highest
    return (ends - pixels.astype(np.int64)).astype(pixels.dtype)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (rows, columns[, channels]) as an EXIF or TIFF orientation, 1 to 8, says they are displayed."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
