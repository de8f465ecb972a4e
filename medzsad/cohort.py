"""Many scans in one go: the detector is loaded once, and one bad scan does not stop the others."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.errors import BadInput, MedzsadError
from medzsad.results.prediction import FORMATS
from medzsad.results.writing import prepare_folder

if TYPE_CHECKING:
    from medzsad.results.html_index import IndexEntry

NAME_WIDTH = 32
# Endings that are no part of a scan's name.
SUFFIXES = (
    ".nii.gz", ".nii", ".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp",
)  # fmt: skip


@dataclass
class Outcome:
    """What became of each input.

    Attributes:
        done: input path or URL, its report (see docs/outputs.md) and the files written, in the inputs' order.
        failed: input path or URL, and the error.
    """

    done: list[tuple[Path | str, dict[str, Any], dict[str, Path]]] = field(default_factory=list)
    failed: list[tuple[Path | str, Exception]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all done, 2 some input was bad, 1 something broke that is not the input's fault."""
        codes = [error.exit_code if isinstance(error, MedzsadError) else 1 for _, error in self.failed]
        return min(codes, default=0)

    def document(self) -> dict[str, Any]:
        """JSON-serialisable: ``scans`` (input, files, report's fields) and ``failed`` (input, error)."""
        return {
            "scans": [
                {"input": _shown(path), "files": {kind: str(file) for kind, file in files.items()}, **report}
                for path, report, files in self.done
            ],
            "failed": [{"input": _shown(path), "error": _shown(error)} for path, error in self.failed],
        }

    def table(self) -> list[str]:
        """Lines of a summary for the terminal; at most 80 columns, but for the folder's name."""
        if not self.done:
            return []
        columns = "{:<" + str(NAME_WIDTH) + "} {:>6} {:>8} {:>10} {:>7} {:>8}"
        lines = [columns.format("scan", "score", "lesions", "largest", "slices", "time")]
        for _, report, _ in self.done:
            volumes = [lesion["volume_ml"] for lesion in report["lesions"] if lesion["volume_ml"] is not None]
            largest = f"{max(volumes):.1f} mL" if volumes else "-"
            seconds = sum(report["timings_s"].values())
            lines.append(
                columns.format(
                    _shortened(report["name"]),
                    f"{report['score']:.3f}",
                    len(report["lesions"]),
                    largest,
                    len(report["slices"]),
                    f"{seconds:.1f} s",
                )
            )
        folders = sorted({str(file.parent) for _, _, files in self.done for file in files.values()})
        count = sum(len(files) for _, _, files in self.done)
        return [*lines, f"{count} files in {', '.join(folders)}", "Research use only - not for diagnosis."]


def predict_many(
    inputs: Iterable[Path],
    out: Path,
    *,
    model: str = "medzsad-mini",
    clip_weights: str | None = None,
    organ: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    series: str | None = None,
    volume: int | None = None,
    modality: str | None = None,
    save_scan: bool = False,
    dicom: str | None = None,
    overlay: str = "montage",
    report: bool = False,
    with_identity: bool = False,
    seg_nrrd: bool = False,
    say: Callable[[str], None] | None = None,
    bar: bool = False,
    **options: Any,
) -> Outcome:
    """Predicts every scan of ``inputs`` and writes its files to ``out``.

    Args:
        inputs: files and folders (see :func:`medzsad.scans.readers.find_scans`).
        out: folder of the results; created where missing.
        model, clip_weights, organ, device, precision: for :func:`medzsad.load_detector`; loaded once.
        series, volume, modality: for :func:`medzsad.read_scan`.
        save_scan: also write each scan as it was read.
        dicom: also write DICOM results, for scans read from DICOM: see
            :func:`medzsad.results.dicom_objects.parse_dicom`.
        overlay: pictures: ``"montage"``, ``"slices"`` (one picture each) or ``"none"``.
        report: also write an HTML report of each scan and, of several, an index.
        with_identity: the HTML reports also name the patient, where a scan's DICOM source does.
        seg_nrrd: also write the mask for 3D Slicer.
        say: gets notes about the scans, line by line.
        bar: show a progress bar where stderr is a terminal.
        options: ``plane``, ``window``, ``threshold`` and ``batch_size`` of :func:`medzsad.predict`.

    Raises:
        MedzsadError: where no input could be predicted for a reason that is not a scan's own: options, the
            model or the output folder.
    """
    from medzsad.predicting import parse_plane, predict
    from medzsad.results.dicom_common import check_source
    from medzsad.results.dicom_objects import PREFIX, parse_dicom
    from medzsad.results.html_index import index_entry, write_index
    from medzsad.results.report import report as facts
    from medzsad.results.thresholds import parse_threshold
    from medzsad.scans.readers import read_scan

    parse_plane(options.get("plane") or "auto")
    if options.get("threshold") is not None:
        parse_threshold(options["threshold"])
    dicom_formats = parse_dicom(dicom)
    outcome = Outcome()
    paths = _expand(inputs, outcome)
    names = unique_names(paths)
    formats = _formats(overlay, scan=save_scan, html=report, **{"seg.nrrd": seg_nrrd}) + dicom_formats
    index: list[IndexEntry] = []
    detector = None
    created = prepare_folder(out) if paths else None
    try:
        for path, name in zip(paths, names, strict=True):
            try:
                scan = read_scan(path, series=series, volume=volume, modality=modality)
                if dicom_formats:
                    check_source(scan, [name.removeprefix(PREFIX) for name in dicom_formats])
            except Exception as error:
                outcome.failed.append((path, error))
                continue
            if detector is None:
                detector = _load(model, clip_weights, organ, device, precision)
            try:
                scan = replace(scan, name=name)
                for note in scan.notes if say else ():
                    say(f"{scan.name}: {note}")
                progress = _progress_bar(scan.name) if bar else None
                prediction = predict(scan, detector, progress=progress, **options)
                files = prediction.save(out, formats=formats, with_identity=with_identity)
                outcome.done.append((path, facts(prediction), files))
                if report:
                    index.append(index_entry(prediction, files["html"]))
            except Exception as error:
                outcome.failed.append((path, error))
        if len(index) > 1:
            write_index(index, out)
    finally:
        if created is not None and not outcome.done:
            _remove_if_empty(created, out)
    return outcome


def _formats(overlay: str, **wanted: bool) -> tuple[str, ...]:
    """The formats of :meth:`ScanPrediction.save` that the options ask for."""
    pictures = {"montage": "overlay", "slices": "slices", "none": None}
    if overlay not in pictures:
        raise BadInput(f"unknown overlay {overlay!r}; use one of {', '.join(pictures)}")
    basic = (pictures[overlay] if name == "overlay" else name for name in FORMATS)
    return tuple(name for name in (*basic, *(name for name, ask in wanted.items() if ask)) if name)


def unique_names(paths: list[Path]) -> list[str]:
    """Output names: the inputs' own, and where these clash, folder names in front or numbers behind.

    Names are the paths' own, not those of what links lead to. Control characters, and bytes of a file name
    that are no UTF-8, are replaced: results hold the name as text.
    """
    places = [Path(os.path.abspath(path)) for path in paths]
    names = [_stem(place) for place in places]
    for depth in range(1, 4):
        # Folded: some file systems do not tell small letters from capitals.
        counts = Counter(name.casefold() for name in names)
        for i, place in enumerate(places):
            if counts[names[i].casefold()] > 1 and len(place.parts) > depth + 1:
                names[i] = f"{_as_text(place.parts[-1 - depth])}_{names[i]}"
    given = {name.casefold() for name in names}
    taken: set[str] = set()
    for i, name in enumerate(names):
        number = 1
        while names[i].casefold() in (taken if number == 1 else taken | given):
            number += 1
            names[i] = f"{name}_{number}"
        taken.add(names[i].casefold())
    return names


def _stem(path: Path) -> str:
    """The name of an absolute path without its ending: dots may be part of a UID, or of a folder's name."""
    if path.name.upper() == "DICOMDIR" and not path.is_dir():
        path = path.parent
    name = path.name
    if not path.is_dir():
        suffix = next((end for end in SUFFIXES if name.lower().endswith(end)), "")
        name = name[: len(name) - len(suffix)]
    return _as_text(name) or "scan"


def _as_text(name: str) -> str:
    """A file name that can be written, printed and encoded."""
    decoded = os.fsencode(name).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "_" for letter in decoded)


def _shown(value: object) -> str:
    """As text that can be encoded, whatever bytes a file name has."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _expand(inputs: Iterable[Path], outcome: Outcome) -> list[Path]:
    """All scans of the inputs, each once; inputs without any are listed as failed."""
    from medzsad.scans.readers import find_scans

    paths: dict[Path, None] = {}
    for path in inputs:
        try:
            paths.update(dict.fromkeys(find_scans(path)))
        except BadInput as error:
            outcome.failed.append((path, error))
    return list(paths)


def _load(model: str, clip_weights: str | None, organ: str | None, device: str, precision: str) -> Any:
    from medzsad.detectors.loading import load_detector

    return load_detector(model, device=device, precision=precision, clip_weights=clip_weights, organ=organ)


def _progress_bar(name: str) -> Callable[..., Iterable[int]]:
    from tqdm import tqdm

    def wrap(indices: Iterable[int], total: int) -> Iterable[int]:
        # disable=None: no bar where stderr is not a terminal.
        return tqdm(
            indices,
            total=total,
            desc=_shortened(name),
            unit="slice",
            disable=None,
            leave=False,
            file=sys.stderr,
        )

    return wrap


def _shortened(name: str) -> str:
    half = NAME_WIDTH // 2 - 1
    return name if len(name) <= NAME_WIDTH else f"{name[:half]}..{name[-half:]}"


def _remove_if_empty(top: Path, folder: Path) -> None:
    """Removes ``folder`` and its parents up to ``top`` as far as they are empty."""
    for path in (folder, *folder.parents):
        try:
            path.rmdir()
        except OSError:
            return
        if path == top:
            return
