"""Which DICOM results there are, and their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.errors import BadInput
from medzsad.scans.own_results import mark

if TYPE_CHECKING:
    from pydicom import Dataset

    from medzsad.results.dicom.context import DicomContext
    from medzsad.results.prediction import ScanPrediction

# Option of --dicom -> what it is.
OBJECTS = {
    "seg": "Segmentation of the mask, a segment for each lesion candidate",
    "seg-fractional": "Segmentation with the map as probabilities of 8 bits",
    "pm": "Parametric Map with the map as floats",
    "sr": "Structured Report of the lesion candidates; it refers to the Segmentation, which comes with it",
    "sc": "Secondary Captures: the map drawn over each image",
}
ALL = ("seg", "pm", "sr")
PREFIX = "dicom-"
DICOM_FORMATS = tuple(f"{PREFIX}{name}" for name in OBJECTS)


def parse_dicom(text: str | None) -> tuple[str, ...]:
    """Return the formats of :meth:`ScanPrediction.save` that ``--dicom`` asks for.

    >>> parse_dicom("sr,sc")
    ('dicom-seg', 'dicom-sr', 'dicom-sc')

    Args:
        text: names of :data:`OBJECTS` with commas between them, or ``all`` (:data:`ALL`); None for nothing.

    Raises:
        BadInput: an unknown name, or highdicom is not installed.
    """
    if text is None:
        return ()
    wanted = {word.strip().lower() for word in text.split(",")}
    unknown = sorted(wanted - {*OBJECTS, "all"})
    if unknown:
        raise BadInput(f"`dicom` {text}: unknown {unknown[0]!r}; use {', '.join(OBJECTS)}, or all.")
    from medzsad.results.dicom.context import require_highdicom

    require_highdicom()
    if "all" in wanted:
        wanted |= set(ALL)
    if "sr" in wanted:
        wanted.add("seg")
    return tuple(f"{PREFIX}{name}" for name in OBJECTS if name in wanted)


def dicom_writers(
    prediction: ScanPrediction, formats: tuple[str, ...]
) -> dict[str, tuple[str, Callable[[Path], None]]]:
    """For each DICOM format: kind of file -> name, and what writes it.

    Args:
        prediction: of a scan that was read from DICOM.
        formats: those that are none of DICOM are left out. The Structured Report brings the Segmentation.

    Raises:
        BadInput: not a DICOM source, or not one that results can refer to.
    """
    wanted = {name.removeprefix(PREFIX) for name in formats if name in DICOM_FORMATS}
    if not wanted:
        return {}
    from medzsad.results.dicom.context import DicomContext, check_source

    check_source(prediction.scan, wanted)
    objects = _Objects(DicomContext.of(prediction))
    wanted |= {"seg"} if "sr" in wanted else set()
    stem = prediction.scan.name
    writers: dict[str, tuple[str, Callable[[Path], None]]] = {}
    for name in OBJECTS:
        if name == "sc" and name in wanted:
            writers[f"{PREFIX}sc"] = (f"{stem}_sc", objects.write_captures)
        elif name in wanted:
            suffix = name.replace("-", "_")
            writers[f"{PREFIX}{name}"] = (f"{stem}_{suffix}.dcm", objects.writer(name))
    return writers


class _Objects:
    """Makes each object when it is written; the Segmentation once, for itself and for the report."""

    def __init__(self, context: DicomContext) -> None:
        self.context = context
        self._fingerprint = context.prediction.fingerprint
        self._segmentation: Dataset | None = None

    def writer(self, name: str) -> Callable[[Path], None]:
        return lambda path: _write(self._make(name), path, mark(name.replace("-", " "), self._fingerprint))

    def write_captures(self, folder: Path) -> None:
        from medzsad.results.dicom.sc import secondary_captures

        folder.mkdir()
        for number, capture in enumerate(secondary_captures(self.context), start=1):
            _write(capture, folder / f"{number:04d}.dcm", mark("sc", self._fingerprint))

    def _make(self, name: str) -> Dataset:
        if name == "seg-fractional":
            from medzsad.results.dicom.images import fractional_segmentation

            return fractional_segmentation(self.context)
        if name == "pm":
            from medzsad.results.dicom.images import parametric_map

            return parametric_map(self.context)
        if self._segmentation is None:
            from medzsad.results.dicom.images import binary_segmentation

            self._segmentation = binary_segmentation(self.context)
        if name == "seg":
            return self._segmentation
        from medzsad.results.dicom.sr import measurement_report

        return measurement_report(self.context, self._segmentation)


def _write(dataset: Dataset, path: Path, marked: str) -> None:
    """Write a file whose preamble, which DICOM leaves to the application, is the mark."""
    import pydicom

    from medzsad.results.dicom.context import silenced

    dataset.preamble = marked.encode("ascii").ljust(128, b"\0")
    with silenced():
        if int(pydicom.__version_info__[0]) >= 3:
            dataset.save_as(path, enforce_file_format=True)
        else:
            dataset.save_as(path, write_like_original=False)
