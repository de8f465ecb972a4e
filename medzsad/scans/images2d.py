"""PNG, JPEG, TIFF and BMP images to scans of one slice.

Pillow is called directly: MONAI's ``PILReader`` ignores EXIF orientation, palettes and alpha. It is told what
a file may be: it opens whatever it recognises, and runs Ghostscript on an EPS. What it would cut to 8 bits
(several channels of 16), and odd TIFFs, go through torchvision and tifffile, which other parts of medzsad
bring along; where tifffile lacks a compression, ITK stands in.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from medzsad.errors import BadInput
from medzsad.limits import check_limit, check_packed, require_file
from medzsad.scans.affines import display_affine
from medzsad.scans.library_warnings import heard
from medzsad.scans.scan import Modality, Scan

if TYPE_CHECKING:
    import tifffile
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
PHOTOMETRIC, SUBFILE, BITS = 262, 254, 258  # TIFF tags
ORIENTATION = 274  # EXIF's and TIFF's
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
"""What the names in :data:`SUFFIXES` stand for; cameras' MPO counts as JPEG."""
_lock = threading.Lock()
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # TIFF's photometric interpretations


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


@contextlib.contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file of one of :data:`FORMATS`; nothing is decoded yet.

    Raises:
        BadInput: if it is no regular file, or claims more pixels than the limits allow.
        PIL.UnidentifiedImageError, OSError, ValueError, SyntaxError: as Pillow does on files that are none.
    """
    from PIL import Image

    require_file(path)
    # Of an open file: by name, Pillow 13 maps it into memory, and scrambles a turned TIFF.
    with open(path, "rb") as file:
        with _lock:
            # Pillow's own limit cannot be raised by the user; ours is checked from the same header.
            most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file, formats=FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = most
        width, height = image.size
        check_limit(float(width) * float(height), "MEDZSAD_MAX_PIXELS", path, "pixels")
        check_packed(path, float(width) * float(height) * len(image.getbands()))
        yield image


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
