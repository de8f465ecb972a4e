"""Result files on disk: all of a scan's files appear complete, or none."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medzsad.errors import BadInput, OutputNotWritable
from medzsad.results.dicom.writers import DICOM_FORMATS, dicom_writers
from medzsad.results.map_files import (
    as_displayed,
    save_png,
    write_anomaly_png,
    write_mask_png,
    write_segmentation,
    write_volume,
)
from medzsad.results.montage import Montage
from medzsad.results.overlay import SLICES, draw_page, save_overlay
from medzsad.results.report import report, to_json
from medzsad.scans.own_results import ENDINGS, SCAN, mark_of, may_be_replaced
from medzsad.storage.atomic import PREFIX, sweep

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction

ALL_FORMATS = ("nifti", "overlay", "json", "scan", "brain", "slices", "html", "seg.nrrd", *DICOM_FORMATS)
Writers = dict[str, tuple[str, Callable[[Path], object]]]


def save_prediction(
    prediction: ScanPrediction, folder: Path, formats: tuple[str, ...], *, with_identity: bool = False
) -> dict[str, Path]:
    """Write a prediction's files (see :meth:`ScanPrediction.save`)."""
    unknown = set(formats) - set(ALL_FORMATS)
    if unknown:
        raise ValueError(f"unknown formats {sorted(unknown)}; choose from {', '.join(ALL_FORMATS)}")
    writers = _writers(prediction, formats, with_identity)
    began = time.perf_counter()
    created = prepare_folder(folder)
    names = {name for name, _ in writers.values()}
    stale = _stale_results(prediction, folder, names)
    finished: list[Path] = []
    try:
        # The files are written beside their destination, so that a rename moves them.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".medzsad-") as staging:
            for kind in sorted(writers, key=lambda kind: kind == "json"):
                # The report is written last: it tells how long the other files took.
                prediction.timings["write_s"] = round(time.perf_counter() - began, 3)
                name, write = writers[kind]
                write(Path(staging) / name)
            for name, _ in writers.values():
                if (folder / name).is_dir():  # which a rename does not replace
                    os.replace(folder / name, Path(staging) / f"{name}.old")
                os.replace(Path(staging) / name, folder / name)
                finished.append(folder / name)
            for path in stale:
                os.replace(path, Path(staging) / f"{path.name}.stale")
    except BaseException as error:
        for path in finished:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if created is not None:
            shutil.rmtree(created, ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputNotWritable(
                f"{folder}: cannot write the results ({error.strerror or error}); choose another folder"
            ) from error
        raise
    return {kind: folder / name for kind, (name, _) in writers.items()}


def _stale_results(prediction: ScanPrediction, folder: Path, names: set[str]) -> list[Path]:
    """Results of another prediction under the same name that will not be replaced.

    Raises:
        OutputNotWritable: a file of these names is no result of medzsad.
    """
    for name in sorted(names):
        if (folder / name).exists() and not may_be_replaced(folder / name):
            raise OutputNotWritable(
                f"{folder / name} was not written by medzsad and would be replaced; choose another folder"
            )
    others = [folder / f"{prediction.scan.name}{ending}" for ending in ENDINGS]
    stale = []
    for path in others:
        if path.name not in names and path.exists():
            found = mark_of(path)
            if may_be_replaced(path) if found is None else found[0] != prediction.fingerprint:
                stale.append(path)
    return stale


def prepare_folder(folder: Path) -> Path | None:
    """Make sure that files can be written to ``folder``.

    Returns:
        The topmost folder that had to be created, or None.

    Raises:
        OutputNotWritable: if it cannot be created or written to.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=PREFIX):
            pass
    except OSError as error:
        reason = "it is a file, not a folder" if folder.is_file() else error.strerror or str(error)
        raise OutputNotWritable(
            f"{folder}: cannot write results there ({reason}); choose another folder"
        ) from error
    return missing[-1] if missing else None


def _writers(prediction: ScanPrediction, formats: tuple[str, ...], with_identity: bool) -> Writers:
    """By kind, the name of a file (or folder) and what writes it there."""
    scan, stem, mark = prediction.scan, prediction.scan.name, prediction.fingerprint

    def volume(kind: str, array: Callable[[], np.ndarray], what: str) -> None:
        writers[kind] = (
            f"{stem}_{kind}.nii.gz",
            lambda path: write_volume(array(), scan, path, what=what, fingerprint=mark),
        )

    writers: Writers = {}
    if "nifti" in formats and scan.is_2d:
        writers["anomaly"] = (
            f"{stem}_anomaly.png",
            lambda path: write_anomaly_png(as_displayed(prediction.anomaly_map, scan), path, mark),
        )
        writers["mask"] = (
            f"{stem}_mask.png",
            lambda path: write_mask_png(as_displayed(prediction.mask, scan), path, mark),
        )
    elif "nifti" in formats:
        volume("anomaly", lambda: prediction.anomaly_map.astype(np.float32, copy=False), "anomaly map")
        volume("mask", lambda: prediction.mask.astype(np.uint8), "mask")
    if "scan" in formats and not scan.is_2d and not scan.is_colour:
        volume("scan", lambda: scan.voxels, SCAN)
    if "brain" in formats:
        if prediction.brain is None:
            raise BadInput(
                f"{prediction.settings.get('model')} does not mark the brain of {stem}; do not ask for it"
            )
        brain = prediction.brain.astype(np.uint8)
        volume("brain", lambda: brain, "brain")
    if "overlay" in formats:
        writers["overlay"] = (f"{stem}_overlay.png", lambda path: save_overlay(prediction, path))
    writers |= dicom_writers(prediction, formats)
    if "json" in formats:
        writers["json"] = (
            f"{stem}.json",
            lambda path: path.write_text(to_json(report(prediction)), encoding="utf-8"),
        )
    if "seg.nrrd" in formats and not scan.is_2d:
        writers["seg.nrrd"] = (f"{stem}_mask.seg.nrrd", lambda path: write_segmentation(prediction, path))
    if "slices" in formats:
        writers["slices"] = (f"{stem}_slices", lambda folder: _write_slices(prediction, folder))
    if "html" in formats:
        from medzsad.results.html.report import save_html_report

        writers["html"] = (
            f"{stem}_report.html",
            lambda path: save_html_report(prediction, path, with_identity=with_identity),
        )
    return writers


def _write_slices(result: ScanPrediction, folder: Path) -> None:
    """Write each slice that the overlay shows as a PNG of its own to ``folder``, which is made.

    A file's name ends with the plane and the slice's own voxel index, as in ``_slice_axial_087.png``; of a 2D
    image it ends with ``_slice_image.png``.
    """
    folder.mkdir()
    montage = Montage(result, 1 if result.scan.is_2d else SLICES)
    for piece in montage.shown:
        what = "image" if result.scan.is_2d else f"{piece.plane}_{piece.index:03d}"
        page = draw_page(result, montage, [piece])
        path = folder / f"{result.scan.name}_slice_{what}.png"
        save_png(page, path, "slice", result.fingerprint, compress_level=4)
