"""Pillow, told what a file may be: it opens whatever it recognises, and runs Ghostscript on an EPS."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.limits import check_limit, check_packed, require_file

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
"""What the names in :data:`medzsad.scans.images2d.SUFFIXES` stand for; cameras' MPO counts as JPEG."""
_lock = threading.Lock()


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
