"""The mark in each result file, by which medzsad knows its own: see :mod:`medzsad.scans.own_results`."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def mark(what: str, fingerprint: str = "") -> str:
    """Return the mark of a result.

    >>> mark("anomaly map", "0a1b2c3d4e5f")
    'medzsad result 0a1b2c3d4e5f: anomaly map'

    Args:
        what: the kind of result, in small letters.
        fingerprint: of the prediction; results of different predictions are never left side by side.
    """
    return f"medzsad result {fingerprint}: {what}".replace("  ", " ").replace(" :", ":")


def save_png(pixels: np.ndarray, path: Path, what: str, fingerprint: str = "", **options: int) -> None:
    """Write a marked PNG.

    Args:
        pixels: uint8 or uint16 (rows, columns), or uint8 (rows, columns, 3).
        path: the file.
        what: see :func:`mark`.
        fingerprint: see :func:`mark`.
        options: of Pillow's PNG writer.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", mark(what, fingerprint))
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG", pnginfo=text, **options)
