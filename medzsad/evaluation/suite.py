"""Several data sets at once, as papers report them: what is there is evaluated, and that only once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from medzsad.datasets.finding import FoundSet, find_sets, suite_entries
from medzsad.datasets.opening import open_dataset
from medzsad.errors import BadInput, MedzsadError, OutputNotWritable
from medzsad.evaluation.cache import describe_detectors, fingerprint, keep_evaluation, load_evaluation
from medzsad.evaluation.command import load_detectors
from medzsad.evaluation.evaluate import REFERENCES, check_batches, evaluate
from medzsad.evaluation.outcome import Evaluation
from medzsad.evaluation.reporting import save_evaluation
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.evaluation.suite_outcome import SetOutcome, Suite
from medzsad.evaluation.suite_report import save_suite
from medzsad.results.writing import prepare_folder
from medzsad.storage.cache import cache_folder

INTERNAL = 1
"""Exit code for a set that failed by a bug of ours; the others' is their error's."""


def run_suite(
    suite: str,
    data: Path | None,
    models: Sequence[str],
    settings: EvaluationSettings | None = None,
    *,
    out: Path | None = None,
    split: str = "test",
    limit: int | None = None,
    no_references: bool = False,
    clip_weights: str | None = None,
    batch_size: int = 1,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "torch",
    no_cache: bool = False,
    say: Callable[[str], None] | None = None,
    progress: Callable[[str], Callable[..., Iterable[Any]]] | None = None,
) -> Suite:
    """Evaluate models on every set of a suite that lies in a folder, and write the results.

    A set whose evaluation is kept in the cache, with the same files, settings and models, is not computed
    again. A set that fails does not stop the others.

    Args:
        suite: see :func:`medzsad.datasets.finding.suite_entries`.
        data: the folder of data sets; None for that of ``MEDZSAD_DATA``.
        models: names or checkpoints for :func:`medzsad.load_detector`, with ``clip_weights``, ``device``,
            ``precision`` and ``backend``.
        settings: of each evaluation.
        out: folder of the results; None writes nothing. Each set has a folder of its own in it
            (:func:`~medzsad.evaluation.writing.save_evaluation`).
        split, limit: for :func:`~medzsad.datasets.opening.open_dataset`, of each set.
        no_references: leave out the trivial references.
        batch_size: images at once.
        no_cache: keep and take no predictions and no evaluations.
        say: gets what happens, line by line.
        progress: see :func:`~medzsad.evaluation.evaluate.evaluate`.

    Returns:
        What became of each set; :attr:`Suite.exit_code` is not 0 if one failed.

    Raises:
        MedzsadError: if the suite is not known, none of its sets is there, a model cannot be used or the
            results cannot be written.
    """
    check_batches((), batch_size)
    settings = settings or EvaluationSettings()
    wanted = suite_entries(suite)
    found = find_sets(data, wanted)
    tell = say or (lambda text: None)
    there = [one for one in found.values() if one is not None]
    if not there:
        raise BadInput(
            f"none of the sets of {suite} is in the folder: looked for {', '.join(found)} "
            "(medzsad datasets list `data` DIR shows what is found)"
        )
    detectors = load_detectors(
        models,
        clip_weights,
        batch_size=batch_size,
        device=device,
        precision=precision,
        backend=backend,
        say=say,
    )
    if out is not None:
        prepare_folder(out)
    references = () if no_references else REFERENCES
    kept = None if no_cache else cache_folder() / "evaluations"
    described = describe_detectors(detectors) if kept is not None else []

    def one_set(place: FoundSet) -> tuple[Evaluation, bool]:
        samples = open_dataset(place.entry.name, place.folder, split=split, limit=limit, seed=settings.seed)
        chosen = settings if samples.is_volumetric else settings.for_set(samples.name)
        path = None
        if kept is not None:
            path = kept / "results" / f"{fingerprint(samples, chosen, described, references)}.json"
            earlier = load_evaluation(path, samples)
            if earlier is not None:
                return earlier, True
        evaluation = evaluate(
            samples,
            detectors,
            chosen,
            references=references,
            cache_folder=kept,
            batch_size=batch_size,
            progress=progress,
        )
        if path is not None:
            keep_evaluation(evaluation, path)
        return evaluation, False

    result = Suite(suite, settings=settings, limit=limit, split=split)
    for entry in wanted:
        place = found[entry.name]
        if place is None:
            tell(f"{entry.name}: not found; {entry.source}")
            result.sets.append(SetOutcome(entry, "missing"))
            continue
        tell(f"{entry.name}: {place.summary}")
        try:
            evaluation, reused = one_set(place)
            if out is not None:
                save_evaluation(evaluation, out / entry.name)
        except OutputNotWritable:  # which no other set would get around
            raise
        except Exception as error:
            code = error.exit_code if isinstance(error, MedzsadError) else INTERNAL
            kind = "" if isinstance(error, MedzsadError) else f"internal error, {type(error).__name__}: "
            message = f"{kind}{error}".partition("\n")[0]
            tell(f"{entry.name}: failed: {message}")
            result.sets.append(SetOutcome(entry, "failed", place, message=message, exit_code=code))
            continue
        if reused:
            tell(f"{entry.name}: done in an earlier run with the same settings (`no_cache` computes it anew)")
        result.sets.append(SetOutcome(entry, "done", place, evaluation, reused=reused))
    if out is not None:
        save_suite(result, out)
    return result
