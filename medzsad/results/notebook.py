"""What a notebook shows of a result."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from medzsad.results.html.pages import render_page
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
    return render_page(
        "notebook.html",
        line=repr(prediction),
        picture=file.getvalue(),
        candidates=candidate_table(prediction, ROWS),
        disclaimer=DISCLAIMER,
    )
