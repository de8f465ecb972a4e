"""What a notebook shows of a result."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from medzsad.results.html.report import candidate_table
from medzsad.results.overlay import DISCLAIMER, render_overlay

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction

SLICES, ROWS = 4, 10
WIDTH = 1200
"""Of the picture in pixels: a notebook keeps it in its file."""


def render_notebook(prediction: ScanPrediction) -> str:
    """Return the overlay and the lesion candidates as HTML that needs nothing else; no patient data.

    Args:
        prediction: the prediction.
    """
    from PIL import Image

    picture = Image.fromarray(render_overlay(prediction, slices=SLICES))
    picture.thumbnail((WIDTH, 10 * WIDTH))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    image = base64.b64encode(file.getvalue()).decode()
    line = html.escape(repr(prediction))
    return (
        f'<figure style="margin:0"><figcaption><code>{line}</code></figcaption>'
        f'<img alt="the most anomalous slices, with and without the anomaly map" style="max-width:100%" '
        f'src="data:image/png;base64,{image}">{candidate_table(prediction, ROWS)}'
        f"<small>{html.escape(DISCLAIMER)}</small></figure>"
    )
