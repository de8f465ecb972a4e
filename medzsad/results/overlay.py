"""The picture of a result: its most anomalous slices beside their anomaly maps, as on a viewing station."""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.results.dicom.source_frames import image_numbers
from medzsad.results.map_files import save_png
from medzsad.results.montage import AMBER, OUTLINE, Montage, ShownSlice, as_bytes, blend
from medzsad.scans.slices import EDGES, STACK_AXIS, Plane

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

    from medzsad.results.prediction import ScanPrediction

SLICES = 6
# All in pixels.
WIDTH, NARROWEST = 1600, 1280
MAX_TILES_HEIGHT = 1560
MIN_CELL = 240
GAP, PAD = 14, 20
HEADER, CAPTION, FOOTER = 116, 28, 34
COLOUR_BAR = (340, 16)

PAGE = (18, 19, 22)
BLACK = (0, 0, 0)
TEXT = (228, 230, 233)
DIM = (156, 160, 166)
DOT = "  \N{MIDDLE DOT}  "

SCALE_BARS_MM = tuple(n * 10.0**power for power in range(-8, 3) for n in (1, 2, 5))  # the last is 50 cm
DISCLAIMER = "Research use only - not for diagnosis"


def save_overlay(result: ScanPrediction, path: str | os.PathLike[str]) -> None:
    """Write :func:`render_overlay` as PNG to ``path``."""
    save_png(render_overlay(result), Path(path), "overlay", result.fingerprint, compress_level=4)


def render_overlay(result: ScanPrediction, *, slices: int = SLICES) -> np.ndarray:
    """Draws the most anomalous slices: left the scan, right the same slice under its anomaly map.

    All slices have one scale (pixels per mm), are cropped to the foreground of the whole scan, follow the
    radiological convention and have the grey levels that the detector saw. The map's colours are absolute: 0
    is transparent and 1 the top of the colour bar, whatever the map's own range. The outline is the mask's.

    Args:
        result: the prediction.
        slices: how many at most (several planes share them evenly); a 2D image has just one.

    Returns:
        uint8 (H, W, 3), W about 1600.
    """
    montage = Montage(result, 1 if result.scan.is_2d else slices)
    return draw_page(result, montage, montage.shown)


def draw_page(result: ScanPrediction, montage: Montage, shown: list[ShownSlice]) -> np.ndarray:
    """Draws ``shown``, slices of ``montage`` in its order, as :func:`render_overlay` does."""
    planes = tuple(plane for plane in result.planes if any(piece.plane == plane for piece in shown))
    layout = Layout.of(
        {plane: (sum(piece.plane == plane for piece in shown), *montage.size_mm(plane)) for plane in planes}
    )
    # One length of scale bar for all tiles, so that planes compare at a glance.
    bar = scale_bar(layout.px_per_mm, 0.3 * min(layout.tile_size(plane)[0] for plane in planes))
    page = _Page(layout.width, layout.height)
    _draw_header(page, result, len(shown))
    for piece, (left, top) in zip(shown, layout.corners, strict=True):
        size = layout.tile_size(piece.plane)
        _draw_caption(page, result, piece, (left, top), layout.cell)
        for column, picture in enumerate(montage.pictures(piece, size)):
            cell = left + column * (layout.cell + 2)
            page.draw.rectangle((cell, top, cell + layout.cell - 1, top + size[1] - 1), fill=BLACK)
            tile = (cell + (layout.cell - size[0]) // 2, top, *size)
            page.paste(picture, tile[:2])
            if result.scan.has_geometry:
                _draw_edges(page, piece.plane, tile, min(20, (layout.cell - size[0]) // 2))
                _draw_scale_bar(page, bar, tile)
            if column:
                _draw_numbers(page, montage, piece, tile)
    _draw_footer(page, result)
    return np.asarray(page.image)


def scale_bar(px_per_mm: float, max_px: float) -> tuple[float, int, str]:
    """Return the longest round length that fits into ``max_px``.

    In mm, in pixels, and as text (``"5 cm"``).
    """
    mm = max((mm for mm in SCALE_BARS_MM if mm * px_per_mm <= max_px), default=SCALE_BARS_MM[0])
    micrometres = f"{mm * 1000:.3g} \N{MICRO SIGN}m"
    text = f"{mm / 10:g} cm" if mm >= 10 else f"{mm:g} mm" if mm >= 0.1 else micrometres
    return mm, round(mm * px_per_mm), text


@dataclass(frozen=True)
class Layout:
    """Where the pairs of tiles go.

    Attributes:
        width, height: of the page in pixels.
        cell: width of one tile's place in pixels; a narrower tile is centred in it.
        px_per_mm: scale of every tile.
        corners: left and top of each pair's tiles, plane by plane; the caption is above.
        sizes_mm: width and height of a tile, by plane.
    """

    width: int
    height: int
    cell: int
    px_per_mm: float
    corners: list[tuple[int, int]]
    sizes_mm: dict[Plane, tuple[float, float]]

    @classmethod
    def of(cls, groups: dict[Plane, tuple[int, float, float]]) -> Layout:
        """Return the layout that shows the tiles largest.

        Args:
            groups: for each plane, the number of pairs, and a tile's width and height in mm. A plane begins a
                new row.
        """
        widest = max(width for _, width, _ in groups.values())
        scale, columns = 0.0, 1
        for tried in range(1, max(count for count, _, _ in groups.values()) + 1):
            rows = [math.ceil(count / tried) for count, _, _ in groups.values()]
            tall = sum(n * height for n, (_, _, height) in zip(rows, groups.values(), strict=True))
            room = max(MAX_TILES_HEIGHT - sum(rows) * (CAPTION + GAP), sum(rows) * MIN_CELL)
            fitting = min(_cell_width(tried) / widest, room / tall)
            if _cell_width(tried) >= MIN_CELL and fitting > scale:
                scale, columns = fitting, tried
        # Tall, narrow tiles do not fill their places: the page becomes narrower rather than empty.
        cell = min(_cell_width(columns), max(MIN_CELL, round(widest * scale)))
        pair = 2 * cell + 2
        width = max(2 * PAD + columns * pair + (columns - 1) * GAP, NARROWEST)
        step = (width - 2 * PAD - pair) / (columns - 1) if columns > 1 else 0
        left = PAD if columns > 1 else (width - pair) // 2
        corners, top = [], HEADER
        for count, _, height in groups.values():
            for i in range(count):
                corners.append((left + round(i % columns * step), top + CAPTION))
                if i % columns == columns - 1 or i == count - 1:
                    top += CAPTION + max(1, round(height * scale)) + GAP
        sizes = {plane: (w, h) for plane, (_, w, h) in groups.items()}
        return cls(width, top + FOOTER, cell, scale, corners, sizes)

    def tile_size(self, plane: Plane) -> tuple[int, int]:
        """Width and height of a tile in pixels."""
        width, height = (max(1, round(mm * self.px_per_mm)) for mm in self.sizes_mm[plane])
        return min(width, self.cell), height


def _cell_width(columns: int) -> int:
    return (WIDTH - 2 * PAD - (columns - 1) * GAP - 2 * columns) // (2 * columns)


class _Page:
    """A dark page to paste pictures and write text on."""

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self.width, self.height = width, height
        self.image = Image.new("RGB", (width, height), PAGE)
        self.draw = ImageDraw.Draw(self.image)

    def paste(self, picture: np.ndarray, corner: tuple[int, int]) -> None:
        from PIL import Image

        self.image.paste(Image.fromarray(picture), corner)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        *,
        size: int = 15,
        bold: bool = False,
        colour: tuple[int, int, int] = TEXT,
        anchor: str = "ls",
        room: float = math.inf,
        halo: bool = False,
    ) -> None:
        """Write one line; ``room`` is the width in pixels beyond which its middle is left out."""
        font = _font(size, bold)
        self.draw.text(
            at, _elided(text, font, room), colour, font, anchor, stroke_width=2 * halo, stroke_fill=BLACK
        )


@functools.cache
def _font(size: int, bold: bool) -> FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def _elided(text: str, font: FreeTypeFont, room: float) -> str:
    kept, short = len(text), text
    while kept > 1 and font.getlength(short) > room:
        kept -= 1
        short = text[: (kept + 1) // 2] + "\N{HORIZONTAL ELLIPSIS}" + text[len(text) - kept // 2 :]
    return short


def _draw_header(page: _Page, result: ScanPrediction, shown: int) -> None:
    room = page.width - 3 * PAD - COLOUR_BAR[0]
    count = len(result.lesions)
    facts = (
        f"{'image' if result.scan.is_2d else 'volume'} score {_short(result.score)}",
        f"threshold {_short(result.threshold)}{result.rule_in_brackets}",
        f"{count} lesion candidate{'' if count == 1 else 's'}",
    )
    page.text((PAD, 32), result.scan.name, size=20, bold=True, room=room)
    page.text((PAD, 57), DOT.join(facts), size=16, room=room)
    how = (f"detector {result.settings.get('model', 'unknown')}", result.scaling.description)
    page.text((PAD, 80), DOT.join(how), size=14, colour=DIM, room=room)
    if not result.slice_scores:
        page.text((PAD, 102), "no slice was scored", size=14, bold=True, colour=AMBER)
    elif not result.mask.any():
        which = "" if result.scan.is_2d else ": these are the most anomalous slices"
        page.text((PAD, 102), f"nothing above the threshold{which}", size=14, bold=True, colour=AMBER)
    else:
        order = "; highest slice score first" if shown > 1 else ""
        legend = f"left the scan, right its anomaly map, outlined where it reaches the threshold{order}"
        page.text((PAD, 102), legend, size=14, colour=DIM, room=room)
    _draw_colour_bar(page, result.threshold, (page.width - PAD - COLOUR_BAR[0], 42))


def _draw_colour_bar(page: _Page, threshold: float, corner: tuple[int, int]) -> None:
    """Return the map's colours as they look over a mid-grey, from 0 to 1, and the threshold."""
    (x, y), (width, height) = corner, COLOUR_BAR
    ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    page.paste(as_bytes(blend(np.full((height, width, 3), 0.3, np.float32), ramp)), corner)
    page.draw.rectangle((x - 1, y - 1, x + width, y + height), outline=DIM)
    page.text((x, y - 9), "anomaly score", size=13)
    for value, anchor in ((0, "lt"), (0.5, "mt"), (1, "rt")):
        at = x + value * (width - 1)
        page.draw.line((at, y + height, at, y + height + 5), fill=DIM)
        page.text((at, y + height + 9), f"{value:g}", size=13, anchor=anchor)
    at = x + round(min(max(threshold, 0.0), 1.0) * (width - 1))
    page.draw.rectangle((at - 1, y - 5, at, y + height + 4), fill=OUTLINE)
    page.text((x + width, y - 9), f"threshold {_short(threshold)}", size=13, colour=OUTLINE, anchor="rs")


def _draw_caption(
    page: _Page, result: ScanPrediction, piece: ShownSlice, corner: tuple[int, int], cell: int
) -> None:
    (left, top), scan = corner, result.scan
    where = "image" if scan.is_2d else f"{piece.plane}  {'ijk'[piece.axis]} = {piece.index}"
    if number := image_numbers(scan).of(piece.axis, piece.index):
        where += DOT + number
    if scan.has_geometry and not scan.is_2d and piece.position_mm is not None:
        where += DOT + _position(piece.plane, piece.position_mm)
    what = "not scored" if piece.score is None else f"score {_short(piece.score)}"
    if piece.lesions:
        numbers = ", ".join(str(number) for number in piece.lesions)
        what += f"{DOT}candidate{'s' if len(piece.lesions) > 1 else ''} {numbers}"
    page.text((left, top - 9), where, room=cell)
    page.text((left + cell + 2, top - 9), what, room=cell)


def _position(plane: Plane, position_mm: float) -> str:
    """Return a world coordinate as viewing stations print it.

    ``"S 12.5 mm"`` above the origin, ``"I"`` below.
    """
    positive, negative = ("RL", "AP", "SI")[STACK_AXIS[plane]]
    return f"{positive if position_mm >= 0 else negative} {abs(position_mm):.1f} mm"


def _draw_edges(page: _Page, plane: Plane, tile: tuple[int, int, int, int], beside: int) -> None:
    """Return what lies at each edge of a tile.

    ``beside`` is how many pixels are free at its left and right.
    """
    x, y, width, height = tile
    left, right, top, bottom = tuple(EDGES[plane])
    style: dict[str, Any] = {"bold": True, "colour": AMBER, "halo": True}
    page.text((x + 6 - beside, y + height / 2), left, anchor="lm", **style)
    page.text((x + width - 6 + beside, y + height / 2), right, anchor="rm", **style)
    page.text((x + width / 2, y + 6), top, anchor="mt", **style)
    page.text((x + width / 2, y + height - 6), bottom, anchor="mb", **style)


def _draw_scale_bar(page: _Page, bar: tuple[float, int, str], tile: tuple[int, int, int, int]) -> None:
    _, length, label = bar
    right, bottom = tile[0] + tile[2] - 10, tile[1] + tile[3] - 10
    page.draw.rectangle((right - length, bottom - 3, right + 1, bottom + 1), fill=BLACK)
    page.draw.rectangle((right - length + 1, bottom - 2, right, bottom), fill=TEXT)
    page.text((right - length / 2, bottom - 8), label, size=13, anchor="ms", halo=True)


def _draw_numbers(page: _Page, montage: Montage, piece: ShownSlice, tile: tuple[int, int, int, int]) -> None:
    """Numbers the lesion candidates, above and to the right of each one's part of the slice."""
    x, y, width, height = tile
    for number in piece.lesions:
        right, top = montage.lesion_corner(piece, number)
        at = (x + min(right * width + 2, width - 14), y + max(top * height + 4, 16))
        page.text(at, str(number), size=14, bold=True, colour=OUTLINE, halo=True)


def _draw_footer(page: _Page, result: ScanPrediction) -> None:
    from medzsad import __version__

    baseline = page.height - 15
    page.text((PAD, baseline), DISCLAIMER, bold=True, colour=AMBER)
    right = [f"medzsad {__version__}"]
    if result.scan.has_geometry and any(plane is not Plane.SAGITTAL for plane in result.planes):
        right.insert(0, "radiological convention: patient right is on the left")
    page.text((page.width - PAD, baseline), DOT.join(right), size=13, colour=DIM, anchor="rs")


def _short(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"
