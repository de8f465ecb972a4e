"""A few scans into one folder: the detector is loaded once, and one bad scan does not stop the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.batch.names import unique_names
from medzsad.batch.outcome import Outcome, shortened
from medzsad.batch.predictor import Predictor, PredictSettings
from medzsad.errors import BadInput, explained
from medzsad.results.writing import prepare_folder

if TYPE_CHECKING:
    from medzsad.results.html.index import IndexEntry
    from medzsad.scans.find import ScanPlace


def predict_many(
    inputs: Iterable[Path],
    out: Path,
    *,
    say: Callable[[str], None] | None = None,
    phase: Callable[[str], None] = lambda _: None,
    progress: Callable[..., Callable[..., Iterable[int]]] | None = None,
    **settings: Any,
) -> Outcome:
    """Predicts every scan of ``inputs`` and writes its files to ``out``.

    Args:
        inputs: files and folders (see :func:`medzsad.scans.find.locate_scans`).
        out: folder of the results; created where missing.
        say: gets notes about the scans and the detector, line by line; a note that several scans have is told
            of the first, and at the end of how many more.
        phase: gets what is done now ("reading NAME"), and at the end "".
        progress: makes, for a scan's name, what wraps its slice indices and gets their ``total``.
        settings: see :class:`~medzsad.batch.predictor.PredictSettings`. With ``report``, several scans also
            get an index.

    Raises:
        MedzsadError: where no input could be predicted for a reason that is not a scan's own: options, the
            model or the output folder.
    """
    from medzsad.results.html.index import index_entry, remove_outdated_index, write_index
    from medzsad.results.report import report as facts

    predictor = Predictor(PredictSettings(**settings), say=say)
    outcome = Outcome()
    places = _expand(inputs, outcome, say)
    if predictor.settings.series:  # the user's choice, in whatever folder it lies
        places = list(dict.fromkeys(replace(place, series=None) for place in places))
    names = unique_names([place.named_after for place in places])
    index: list[IndexEntry] = []
    notes: Counter[str] = Counter()

    def tell(name: str, about: Iterable[str]) -> None:
        for note in about:
            notes[note] += 1
            if say and notes[note] == 1:
                say(f"{name}: {note}")

    created = prepare_folder(out) if places else None
    try:
        for place, name in zip(places, names, strict=True):
            path = place.path
            try:
                phase(f"reading {shortened(name)}")
                scan = predictor.read(path, name, series=place.series)
            except Exception as error:
                outcome.failed.append((path, explained(error, path)))
                continue
            phase(f"loading {predictor.settings.model}")
            predictor.load()  # a model that is not ready stops all
            try:
                tell(scan.name, scan.notes)
                phase(f"predicting {shortened(name)}")
                prediction = predictor.predict(scan, progress=progress(shortened(name)) if progress else None)
                tell(scan.name, prediction.scan.notes[len(scan.notes) :])
                phase(f"writing {shortened(name)}")
                files = predictor.save(prediction, out)
                outcome.done.append((path, facts(prediction), files))
                if predictor.settings.report:
                    index.append(index_entry(prediction, files["html"]))
            except Exception as error:
                outcome.failed.append((path, explained(error, path)))
        if len(index) > 1:
            write_index(index, out)
        else:
            remove_outdated_index(out, [report["name"] for _, report, _ in outcome.done])
        for note, count in notes.items():
            if say and count > 1:
                say(f"{count - 1} more scan{'s' if count > 2 else ''}: {note}")
    finally:
        phase("")
        if created is not None and not outcome.done:
            _remove_if_empty(created, out)
    return outcome


def _expand(inputs: Iterable[Path], outcome: Outcome, say: Callable[[str], None] | None) -> list[ScanPlace]:
    """All scans of the inputs, each once; inputs without any are listed as failed."""
    from medzsad.scans.find import locate_scans

    found: dict[ScanPlace, None] = {}
    for path in inputs:
        try:
            places, notes = locate_scans(path)
        except BadInput as error:
            outcome.failed.append((path, error))
            continue
        found.update(dict.fromkeys(places))
        if say is not None:
            for note in notes:
                say(f"{path}: {note}")
    return list(found)


def _remove_if_empty(top: Path, folder: Path) -> None:
    """Remove ``folder`` and its parents up to ``top`` as far as they are empty."""
    for path in (folder, *folder.parents):
        try:
            path.rmdir()
        except OSError:
            return
        if path == top:
            return
