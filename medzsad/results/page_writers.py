"""The files of a format besides the basic ones: pages, pictures and Slicer's segmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction

Writers = dict[str, tuple[str, Callable[[Path], None]]]


def page_writers(prediction: ScanPrediction, formats: tuple[str, ...], with_identity: bool) -> Writers:
    """By kind, the name of a file (or folder) and what writes it there."""
    stem, is_2d = prediction.scan.name, prediction.scan.is_2d
    writers: Writers = {}
    if "seg.nrrd" in formats and not is_2d:
        from medzsad.results.segmentation_nrrd import write_segmentation

        writers["seg.nrrd"] = (f"{stem}_mask.seg.nrrd", lambda path: write_segmentation(prediction, path))
    if "slices" in formats:
        writers["slices"] = (f"{stem}_slices", lambda path: _write_slices(prediction, path))
    if "html" in formats:
        from medzsad.results.html.report import save_html_report

        writers["html"] = (
            f"{stem}_report.html",
            lambda path: save_html_report(prediction, path, with_identity=with_identity),
        )
    return writers


def _write_slices(prediction: ScanPrediction, folder: Path) -> None:
    from medzsad.results.slice_pictures import SlicePictures

    folder.mkdir()
    pictures = SlicePictures(prediction)
    for piece in pictures.shown:
        pictures.save(piece, folder / f"{prediction.scan.name}_{pictures.name(piece)}.png")
