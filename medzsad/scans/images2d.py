"""PNG, JPEG, TIFF and BMP images to scans of one slice.

Pillow is called directly: MONAI's ``PILReader`` ignores EXIF orientation, palettes and alpha.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medzsad.errors import BadInput
from medzsad.scans.affines import display_affine
from medzsad.scans.scan import Modality, Scan

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def is_image(path: Path) -> bool:
    """Whether the file name is that of a 2D image."""
    return path.suffix.lower() in SUFFIXES


def read_image(path: Path) -> Scan:
    """Read a 2D image; grey levels of 16 bits or floats are kept as they are.

    EXIF orientation is applied, palettes become colours, alpha is dropped, and colour images whose three
    channels are equal become grey.

    Returns:
        (X, Y, 1) or (X, Y, 1, 3) with X the columns, modality RGB or GREY, no geometry.
        ``details["range"]`` is ``[0, 255]`` where the file held 8 bits a channel.

    Raises:
        BadInput: not an image, cut short, or several pages.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                raise BadInput(
                    f"{path} holds {pages} pages; save one page, or the stack as NIfTI, and try again."
                )
            if 0 in image.size:
                raise BadInput(f"{path} holds no pixels; export it again.")
            mode = image.mode
            pixels = _pixels(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise BadInput(f"{path} is not a readable image; check that it is complete.") from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"{path} is too large for a scan; crop or shrink it and try again.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"{path} is cut short or damaged; copy or export it again.") from error

    colour = pixels.ndim == 3
    eight_bit = pixels.dtype == np.uint8
    voxels = pixels.swapaxes(0, 1)[:, :, None].astype(np.float32)
    details = {"format": path.suffix.lower().lstrip("."), "stored_type": mode}
    if eight_bit:
        details["range"] = [0, 255]
    return Scan(
        voxels=voxels,
        affine=display_affine(),
        modality=Modality.RGB if colour else Modality.GREY,
        modality_source="guessed",
        name=path.stem,
        source=path,
        is_2d=True,
        has_geometry=False,
        details=details,
    )


def _pixels(image: Image.Image) -> np.ndarray:
    """(rows, columns) or (rows, columns, 3)."""
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("LA", "La"):
        image = image.getchannel("L")
    elif image.mode not in ("L", "RGB") and not image.mode.startswith(("I", "F")):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.ndim == 3 and (pixels[..., :1] == pixels[..., 1:]).all():
        return pixels[..., 0]
    return pixels
