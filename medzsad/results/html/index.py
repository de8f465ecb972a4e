"""The page that leads to the reports of several scans, highest score first."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

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


def index_page(
    entries: list[IndexEntry],
    failed: Sequence[tuple[str, str]] = (),
    *,
    done: int | None = None,
    failures: int = 0,
) -> str:
    """Return the page, highest score first; it loads nothing but the reports on a click.

    Args:
        entries: the scans that are done.
        failed: name and reason of those that failed.
        done, failures: how many there are of both, where not all are listed.
    """
    script = asset("index.js")
    listed, done = len(entries), max(len(entries), done or 0)
    return render_page(
        "index.html",
        policy=content_policy(script),
        style=asset("report.css"),
        script=script,
        count=str(done) if done == listed else f"{listed} of {done}",
        entries=sorted(entries, key=lambda entry: (-entry.score, entry.name)),
        failed=failed,
        failures=max(len(failed), failures),
    )


def is_index(content: bytes) -> bool:
    """Return whether a file's content is an index of medzsad."""
    return b"<title>medzsad: " in content[:2048]


def reports_in(page: str) -> set[str]:
    """Return the names of the scans whose reports an index leads to."""
    links = re.findall(r'href="([^"]*)_report\.html"', page)
    return {unquote(link).rpartition("/")[2] for link in links}
