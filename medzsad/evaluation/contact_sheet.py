"""A page of cases: what a detector found best, and where it was most wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medzsad.results.montage import OUTLINE, as_bytes, blend
from medzsad.scans.showing import LUMINANCE

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

TILE = 224
GAP, PAD, CAPTION, HEADING = 8, 18, 40, 34
PAGE, TEXT, DIM = (18, 19, 22), (228, 230, 233), (156, 160, 166)
TRUTH = (90, 255, 90)
BAR = (240, 12)


@dataclass(frozen=True)
class Tile:
    """One case, drawn as a pair: the image with the truth outlined, the same image under its map.

    Attributes:
        image: float32 (H, W, 3) in [0, 1].
        anomaly_map: float32 (H, W) in [0, 1].
        mask: bool (H, W); None if only the label is known.
        threshold: that the map is outlined at.
        caption: one or two short lines.
    """

    image: np.ndarray
    anomaly_map: np.ndarray
    mask: np.ndarray | None
    threshold: float
    caption: tuple[str, ...]


def draw_sheet(title: str, sections: list[tuple[str, list[Tile]]]) -> np.ndarray:
    """Draws sections of tiles, one row each.

    Args:
        title: at the top.
        sections: heading and tiles; empty ones are left out.

    Returns:
        uint8 (H, W, 3).
    """
    from PIL import Image, ImageDraw

    sections = [section for section in sections if section[1]]
    columns = max((len(tiles) for _, tiles in sections), default=1)
    width = 2 * PAD + max(columns, 2) * (2 * TILE + 2) + (max(columns, 2) - 1) * GAP
    row = HEADING + TILE + CAPTION + GAP
    page = Image.new("RGB", (width, 2 * PAD + 76 + row * len(sections)), PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((PAD, PAD), title, TEXT, _font(22))
    masked = any(tile.mask is not None for _, tiles in sections for tile in tiles)
    truth = ", truth outlined in green" if masked else ""
    legend = f"left: image{truth}   right: the same in grey under its map, outlined in cyan at the threshold"
    draw.text((PAD, PAD + 34), legend, DIM, _font(14))
    _draw_colour_bar(page, draw, (width - PAD - BAR[0], PAD + 8))
    top = PAD + 70
    for heading, tiles in sections:
        draw.text((PAD, top), heading, TEXT, _font(18))
        for number, tile in enumerate(tiles):
            left = PAD + number * (2 * TILE + 2 + GAP)
            for side, picture in enumerate(pair(tile)):
                page.paste(Image.fromarray(picture), (left + side * (TILE + 2), top + HEADING))
            for line, text in enumerate(tile.caption[:2]):
                draw.text((left, top + HEADING + TILE + 3 + 17 * line), _fitted(draw, text), DIM, _font(13))
        top += row
    return np.asarray(page)


def pair(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures of a tile, uint8 (TILE, TILE, 3), letterboxed: proportions are kept."""
    base = _fit(tile.image)
    truth = as_bytes(base).copy()
    if tile.mask is not None:
        truth[_edge(_fit(tile.mask.astype(np.float32)) >= 0.5)] = TRUTH
    heat = _fit(tile.anomaly_map)
    # In grey: the map's colours cannot be told from red mucosa or skin.
    grey = (base @ LUMINANCE)[..., None].repeat(3, axis=2)
    found = as_bytes(blend(grey, heat)).copy()
    found[_edge(heat >= tile.threshold)] = OUTLINE
    return _boxed(truth), _boxed(found)


def _fit(array: np.ndarray) -> np.ndarray:
    """Resized so that the longer side is TILE; (h, w[, 3]) in [0, 1]."""
    from PIL import Image

    scale = TILE / max(array.shape[:2])
    size = tuple(max(1, round(length * scale)) for length in array.shape[1::-1])
    if array.ndim == 3:
        return np.stack([_fit(array[..., channel]) for channel in range(3)], -1)
    picture = Image.fromarray(np.ascontiguousarray(array, dtype=np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).clip(0, 1)


def _boxed(picture: np.ndarray) -> np.ndarray:
    box = np.zeros((TILE, TILE, 3), np.uint8)
    height, width = picture.shape[:2]
    top, left = (TILE - height) // 2, (TILE - width) // 2
    box[top : top + height, left : left + width] = picture
    return box


def _edge(inside: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return inside & ~ndimage.binary_erosion(inside, iterations=2, border_value=1)


def _draw_colour_bar(page: PilImage, draw: ImageDraw, corner: tuple[int, int]) -> None:
    """Return the map's colours as they look over a mid-grey, from 0 to 1."""
    from PIL import Image

    ramp = np.broadcast_to(np.linspace(0, 1, BAR[0], dtype=np.float32), BAR[::-1])
    page.paste(Image.fromarray(as_bytes(blend(np.full((*BAR[::-1], 3), 0.3, np.float32), ramp))), corner)
    left, top = corner[0], corner[1] + BAR[1] + 2
    for text, at, anchor in (("0", 0, "la"), ("anomaly map", BAR[0] / 2, "ma"), ("1", BAR[0], "ra")):
        draw.text((left + at, top), text, DIM, _font(13), anchor=anchor)


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fitted(draw: ImageDraw, text: str) -> str:
    while text and draw.textlength(text, _font(13)) > 2 * TILE:
        text = text[:-2].rstrip(".") + "\N{HORIZONTAL ELLIPSIS}" if len(text) > 2 else ""
    return text
