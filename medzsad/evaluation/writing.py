"""The files of an evaluation, and of a suite of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.errors import OutputNotWritable
from medzsad.evaluation.evaluate import Evaluation
from medzsad.evaluation.plots import save_plots
from medzsad.evaluation.reporting import document, plain_rows, tables
from medzsad.evaluation.tables import csv_text
from medzsad.results.report import to_json

if TYPE_CHECKING:
    from medzsad.evaluation.suite import Suite


def save_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``metrics.json``, ``metrics.csv``, ``table.md``, ``table.tex`` and the plots.

    Each file appears complete or not at all.

    Returns:
        The files.

    Raises:
        OutputNotWritable: if a file cannot be written.
    """
    found = tables(evaluation)
    texts = {
        "metrics.json": to_json(document(evaluation)),
        "metrics.csv": csv_text(*plain_rows(evaluation)),
        "table.md": "\n".join(table.markdown() for table in found),
        "table.tex": "\n".join(table.latex() for table in found),
    }
    return _write(folder, texts, lambda staging: save_plots(evaluation, staging))


def save_suite(suite: Suite, folder: Path) -> list[Path]:
    """Write ``suite.json``, ``suite.csv``, ``suite.md``, ``suite.tex`` and a picture per level.

    Each file appears complete or not at all.

    Returns:
        The files.

    Raises:
        OutputNotWritable: if a file cannot be written.
    """
    from medzsad.evaluation.suite_plot import save_suite_plots
    from medzsad.evaluation.suite_report import CSV_HEADER, suite_document, suite_rows, suite_tables

    found = suite_tables(suite)
    texts = {
        "suite.json": to_json(suite_document(suite)),
        "suite.csv": csv_text(CSV_HEADER, suite_rows(suite)),
        "suite.md": "\n".join(table.markdown() for table in found),
        "suite.tex": "\n".join(table.latex() for table in found),
    }
    return _write(folder, texts, lambda staging: save_suite_plots(suite, staging))


def _write(folder: Path, texts: Mapping[str, str], draw: Callable[[Path], object]) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".medzsad-") as staging:
            for name, text in texts.items():
                (Path(staging) / name).write_text(text, encoding="utf-8")
            draw(Path(staging))
            names = sorted(path.name for path in Path(staging).iterdir())
            for name in names:
                os.replace(Path(staging) / name, folder / name)
    except OSError as error:
        raise OutputNotWritable(
            f"{folder}: cannot write the evaluation ({error.strerror or error}); choose another folder"
        ) from error
    return [folder / name for name in names]
