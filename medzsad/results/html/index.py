"""The page that leads to the reports of several scans, highest score first."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from medzsad.errors import OutputNotWritable
from medzsad.results.html.pages import asset, content_policy, render_page

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction

THUMBNAIL = 220
INDEX_NAME = "index.html"


@dataclass(frozen=True)
class IndexEntry:
    """A scan's line in the index.

    Attributes:
        name: of the scan.
        report: file name of its report, or its path, relative to the index's own folder.
        score: volume score in [0, 1].
        lesions: number of lesion candidates.
        largest_ml: volume of the largest; None without one, or without geometry.
        model: name of the detector.
        modality: of the scan.
        picture: PNG: the highest-scoring slice under its map.
    """

    name: str
    report: str
    score: float
    lesions: int
    largest_ml: float | None
    model: str
    modality: str
    picture: bytes


def index_entry(prediction: ScanPrediction, report: Path) -> IndexEntry:
    """Return a prediction's line, with its picture drawn; the prediction itself need not be kept."""
    volumes = [lesion.volume_ml for lesion in prediction.lesions if lesion.volume_ml is not None]
    return IndexEntry(
        prediction.scan.name,
        report.name,
        prediction.score,
        len(prediction.lesions),
        max(volumes, default=None),
        str(prediction.settings.get("model")),
        str(prediction.scan.modality),
        thumbnail(prediction),
    )


def thumbnail(prediction: ScanPrediction) -> bytes:
    """Return highest-scoring slice under its map as PNG, at most :data:`THUMBNAIL` pixels wide and high."""
    from PIL import Image

    from medzsad.results.montage import Montage

    montage = Montage(prediction, 1)
    piece = montage.shown[0]
    width, height = montage.size_mm(piece.plane)
    scale = THUMBNAIL / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    stream = io.BytesIO()
    Image.fromarray(montage.pictures(piece, size)[1]).save(stream, format="PNG")
    return stream.getvalue()


def write_index(entries: list[IndexEntry], folder: Path, *, total: int | None = None) -> Path:
    """Write ``index.html`` to ``folder``, highest score first; it loads nothing but the reports on a click.

    ``total`` is the number of scans where not all are listed.

    Raises:
        OutputNotWritable: if the file cannot be written, or would replace one that is no index of medzsad.
    """
    page = render_page(
        "index.html",
        policy=content_policy(),
        style=asset("report.css"),
        count=str(len(entries)) if total in (None, len(entries)) else f"{len(entries)} of {total}",
        entries=sorted(entries, key=lambda entry: (-entry.score, entry.name)),
    )
    path = folder / INDEX_NAME
    if path.exists() and not _is_index(path):
        raise OutputNotWritable(
            f"{path} was not written by medzsad and would be replaced; choose another folder"
        )
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".medzsad-") as staging:
            (Path(staging) / INDEX_NAME).write_text(page, encoding="utf-8", newline="\n")
            os.replace(Path(staging) / INDEX_NAME, path)
    except OSError as error:
        raise OutputNotWritable(
            f"{path}: cannot write the index ({error.strerror or error}); choose another folder"
        ) from error
    return path


def remove_outdated_index(folder: Path, names: Iterable[str]) -> None:
    """Remove the index of an earlier run if it lists one of these scans, whose results are others by now."""
    path = folder / INDEX_NAME
    if path.is_file() and _is_index(path):
        text = path.read_text("utf-8", "replace")
        if any(f'href="{quote(f"{name}_report.html")}"' in text for name in names):
            path.unlink()


def _is_index(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<title>medzsad: " in file.read(2048)
