"""Several data sets at once, as papers report them: what is there is evaluated, and that only once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from medzsad.datasets.finding import FoundSet, find_sets, suite_entries
from medzsad.datasets.opening import DatasetQuery
from medzsad.errors import BadInput, MedzsadError, OutputNotWritable
from medzsad.evaluation.cache import describe_detectors, fingerprint, keep_evaluation, load_evaluation
from medzsad.evaluation.command import Progress, load_detectors, predictions_folder
from medzsad.evaluation.evaluate import evaluate
from medzsad.evaluation.outcome import Evaluation
from medzsad.evaluation.reporting import save_evaluation
from medzsad.evaluation.settings import EvaluationSettings, RunSettings
from medzsad.evaluation.suite_outcome import SetOutcome, Suite
from medzsad.evaluation.suite_report import save_suite
from medzsad.results.writing import prepare_folder
from medzsad.settings import DetectorSpec

logger = logging.getLogger(__name__)

INTERNAL = 1
"""Exit code for a set that failed by a bug of ours; the others' is their error's."""


def run_suite(
    suite: DatasetQuery,
    models: Sequence[DetectorSpec | str],
    settings: EvaluationSettings | None = None,
    run: RunSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Suite:
    """Evaluate models on every set of a suite that lies in a folder, and write the results.

    A set whose evaluation is kept in the cache, with the same files, settings and models, is not computed
    again. A set that fails does not stop the others. What happens is logged, line by line.

    Args:
        suite: by its ``name`` (:func:`medzsad.datasets.finding.suite_entries`); ``root`` is the folder of
            data sets, None for that of ``MEDZSAD_DATA``; ``split`` and ``limit`` are of each set.
        models: names, checkpoints, or all that a detector is told.
        settings: of each evaluation.
        run: what is written, kept and run beside; ``save_maps`` is for one data set.
        progress: see :data:`~medzsad.evaluation.command.Progress`.

    Returns:
        What became of each set; :attr:`Suite.exit_code` is not 0 if one failed.

    Raises:
        MedzsadError: if the suite is not known, none of its sets is there, a model cannot be used or the
            results cannot be written.
    """
    settings, run = settings or EvaluationSettings(), run or RunSettings()
    wanted = suite_entries(suite.name)
    found = find_sets(suite.root, wanted)
    there = [one for one in found.values() if one is not None]
    if not there:
        raise BadInput(
            f"none of the sets of {suite.name} is in the folder: looked for {', '.join(found)} "
            "(medzsad datasets list `data` DIR shows what is found)"
        )
    detectors = load_detectors(models, settings, run)
    if run.out is not None:
        prepare_folder(run.out)
    kept = None if run.no_cache else predictions_folder()
    described = describe_detectors(detectors) if kept is not None else []

    def one_set(place: FoundSet) -> tuple[Evaluation, bool]:
        samples = replace(suite, name=place.entry.name, root=place.folder, seed=settings.seed).open()
        chosen = settings if samples.is_volumetric else settings.for_set(samples.name)
        path = None
        if kept is not None:
            path = kept / "results" / f"{fingerprint(samples, chosen, described, run.references)}.json"
            earlier = load_evaluation(path, samples)
            if earlier is not None:
                return earlier, True
        evaluation = evaluate(
            samples,
            detectors,
            chosen,
            references=run.references,
            cache_folder=kept,
            batch_size=run.batch_size,
            progress=progress,
        )
        if path is not None:
            keep_evaluation(evaluation, path)
        return evaluation, False

    result = Suite(suite.name, settings=settings, limit=suite.limit, split=suite.split)
    for entry in wanted:
        place = found[entry.name]
        if place is None:
            logger.info("%s: not found; %s", entry.name, entry.source)
            result.sets.append(SetOutcome(entry, "missing"))
            continue
        logger.info("%s: %s", entry.name, place.summary)
        try:
            evaluation, reused = one_set(place)
            if run.out is not None:
                save_evaluation(evaluation, run.out / entry.name)
        except OutputNotWritable:  # which no other set would get around
            raise
        except Exception as error:
            code = error.exit_code if isinstance(error, MedzsadError) else INTERNAL
            kind = "" if isinstance(error, MedzsadError) else f"internal error, {type(error).__name__}: "
            message = f"{kind}{error}".partition("\n")[0]
            logger.info("%s: failed: %s", entry.name, message)
            result.sets.append(SetOutcome(entry, "failed", place, message=message, exit_code=code))
            continue
        if reused:
            logger.info(
                "%s: done in an earlier run with the same settings (`no_cache` computes it anew)", entry.name
            )
        result.sets.append(SetOutcome(entry, "done", place, evaluation, reused=reused))
    if run.out is not None:
        save_suite(result, run.out)
    return result
