"""What ``--save-maps`` writes of one detector: all maps, and a sheet of the best and worst cases."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from medzsad.datasets.images import image_size, read_image
from medzsad.datasets.samples import Sample, VolumeSample
from medzsad.detectors.base import resize_maps
from medzsad.errors import OutputNotWritable
from medzsad.evaluation.outcome import ClassOutcome
from medzsad.results.map_files import write_anomaly_png, write_volume
from medzsad.results.montage import OUTLINE, as_bytes, blend
from medzsad.scans.images2d import open_picture
from medzsad.scans.modality import LUMINANCE
from medzsad.storage.atomic import replacing

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from medzsad.scans.scan import Scan

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


SHOWN = 5  # cases per row of the contact sheet


class CaseFiles:
    """Stores the maps of one detector as they come, and draws cases in the end.

    Args:
        folder: where ``maps/`` and ``cases.png`` go.
        detector: its name, for the title.
        threshold: of the map, for outlines.
        title: of the data set.
    """

    def __init__(self, folder: Path, detector: str, threshold: float, title: str) -> None:
        self.folder = folder
        self.detector = detector
        self.threshold = threshold
        self.title = title
        self._names: dict[str, str] = {}  # name of a map, in lower case, to the id of its case
        self._draw: dict[str, Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray | None]]] = {}

    def keep_image(self, sample: Sample, anomaly_map: np.ndarray) -> None:
        """Write the map of an image as 16-bit PNG of the image's own size."""
        path = self._path(sample.id, "png")
        whole = _resized(anomaly_map, image_size(sample.image)).T[:, :, None]
        _complete(path, lambda staged: write_anomaly_png(whole, staged))

        def parts() -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
            # Read again for the few that are drawn: all maps together may not fit into memory.
            with open_picture(path) as stored:
                heat = np.asarray(stored, dtype=np.float32) / 65535
            mask = sample.read_mask() if sample.mask is not None else None
            return np.moveaxis(read_image(sample.image), 0, -1), heat, mask

        self._draw[sample.id] = parts

    def keep_volume(
        self, sample: VolumeSample, scan: Scan, anomaly_map: np.ndarray, label: np.ndarray
    ) -> None:
        """Write the map of a volume as NIfTI in the scan's grid, and keep one slice for the sheet."""
        whole = anomaly_map.astype(np.float32, copy=False)
        _complete(self._path(sample.id, "nii.gz"), lambda staged: write_volume(whole, scan, staged))
        image, heat, truth = _telling_slice(scan, anomaly_map, label)
        self._draw[sample.id] = lambda: (image, heat, truth)

    def finish(self, classes: list[ClassOutcome]) -> None:
        """Draws the contact sheet."""
        cases = [case for one in classes for case in one.cases]
        sections = [(heading, [self._tile(case) for case in chosen]) for heading, chosen in _sections(cases)]
        page = draw_sheet(f"{self.title}: {self.detector}", sections)
        _complete(self.folder / "cases.png", lambda staged: Image.fromarray(page).save(staged))

    def _tile(self, case: dict[str, Any]) -> Tile:
        image, anomaly_map, mask = self._draw[case["id"]]()
        quality = _quality(case)
        figures = f"score {case['score']:.3f}" + ("" if quality is None else f"   AP {quality:.3f}")
        return Tile(image, anomaly_map, mask, self.threshold, (case["id"], figures))

    def _path(self, identifier: str, suffix: str) -> Path:
        """Where the map of a case goes: its id without what a file name should not hold."""
        plain = re.sub(r"[^\w.-]+", "_", identifier)
        name, number = plain, 1
        while self._names.setdefault(name.casefold(), identifier) != identifier:  # "a b" beside "a_b"
            number += 1
            name = f"{plain}-{number}"
        return self.folder / "maps" / f"{name}.{suffix}"


def _complete(path: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` write to another name and renames that: the file appears complete or not at all."""
    try:
        with replacing(path, suffix="".join(path.suffixes[-2:])) as staged:
            write(staged)
    except OSError as error:
        raise OutputNotWritable(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another folder"
        ) from error


def _sections(cases: list[dict[str, Any]]) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """Best and worst anomalous cases (by their own pixels if there are masks), highest-scored normal ones."""
    anomalous = [case for case in cases if case["label"]]
    normal = sorted((case for case in cases if not case["label"]), key=lambda case: -case["score"])
    by_pixels = [case for case in anomalous if _quality(case) is not None]
    ranked = sorted(by_pixels or anomalous, key=lambda case: -(_quality(case) or case["score"]))
    what = "average precision inside the image" if by_pixels else "score"
    half = min(SHOWN, (len(ranked) + 1) // 2)
    yield f"anomalous, best found ({what})", ranked[:half]
    yield f"anomalous, worst found ({what})", ranked[half:][-SHOWN:][::-1]
    yield "normal, highest score", normal[:SHOWN]
    yield "normal, lowest score", normal[SHOWN:][-SHOWN:][::-1]


def _quality(case: dict[str, Any]) -> float | None:
    return case.get("pixel_ap", case.get("ap"))


def _telling_slice(
    scan: Scan, anomaly_map: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the axial slice that holds most of the label (of the map where there is none), as displayed."""
    from medzsad.scans.intensity import intensity_scaling
    from medzsad.scans.slices import STACK_AXIS, CanonicalView, Plane, slice_image

    view = CanonicalView.of(scan)
    canonical = [view.to_canonical(array) for array in (scan.voxels, anomaly_map, label)]
    axis = STACK_AXIS[Plane.AXIAL]
    weight = canonical[2] if label.any() else canonical[1]
    index = int(weight.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())
    voxels, heat, truth = (slice_image(array, Plane.AXIAL, index) for array in canonical)
    image = np.nan_to_num(intensity_scaling(scan)(np.ascontiguousarray(voxels)))
    return (
        np.ascontiguousarray(np.moveaxis(image, 0, -1).clip(0, 1)),
        np.ascontiguousarray(heat),
        np.ascontiguousarray(truth),
    )


def _resized(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize_maps(torch.from_numpy(np.ascontiguousarray(anomaly_map))[None], size)[0].numpy()
