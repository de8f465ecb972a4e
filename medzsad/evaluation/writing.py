"""The files of an evaluation."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from medzsad.errors import OutputNotWritable
from medzsad.evaluation.evaluate import Evaluation
from medzsad.evaluation.plots import save_plots
from medzsad.evaluation.reporting import document, plain_rows, tables
from medzsad.evaluation.tables import csv_text
from medzsad.results.report import to_json


def save_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Writes ``metrics.json``, ``metrics.csv``, ``table.md``, ``table.tex`` and the plots.

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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".medzsad-") as staging:
            for name, text in texts.items():
                (Path(staging) / name).write_text(text, encoding="utf-8")
            save_plots(evaluation, Path(staging))
            names = sorted(path.name for path in Path(staging).iterdir())
            for name in names:
                os.replace(Path(staging) / name, folder / name)
    except OSError as error:
        raise OutputNotWritable(
            f"{folder}: cannot write the evaluation ({error.strerror or error}); choose another folder"
        ) from error
    return [folder / name for name in names]
