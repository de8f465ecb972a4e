"""What ``medzsad evaluate`` does with a data set, or with a share of one, from names to files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.datasets.catalog import by_class
from medzsad.datasets.claims import title
from medzsad.datasets.opening import DatasetQuery
from medzsad.datasets.samples import SampleSet
from medzsad.errors import BadInput
from medzsad.evaluation.case_files import CaseFiles
from medzsad.evaluation.evaluate import check_batches, evaluate, framing_and_cache
from medzsad.evaluation.few_normals import FewNormals, draw_normals, few_outcomes
from medzsad.evaluation.image_sets import is_shown_grey, modality_of, predict_images
from medzsad.evaluation.outcome import DetectorOutcome, Evaluation
from medzsad.evaluation.reporting import save_evaluation
from medzsad.evaluation.settings import EvaluationSettings, RunSettings
from medzsad.evaluation.volume_sets import volume_prediction
from medzsad.results.writing import prepare_folder
from medzsad.settings import DetectorSpec
from medzsad.storage.cache import cache_folder
from medzsad.storage.hashing import Shard
from medzsad.zoo.loading import load_spec

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.detectors.mutual.settings import MutualSettings

logger = logging.getLogger(__name__)

Progress = Callable[[str], Callable[..., Iterable[Any]]]
"""Gives, for a detector's name, a wrapper of the samples, e.g. ``tqdm``, which gets ``total``."""


def run_evaluation(
    dataset: DatasetQuery,
    models: Sequence[DetectorSpec | str],
    settings: EvaluationSettings | None = None,
    run: RunSettings | None = None,
    *,
    few: FewNormals | None = None,
    mutual: MutualSettings | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate models on a data set and write the results; notes on the data and the models are logged.

    Args:
        dataset: which samples.
        models: names, checkpoints, or all that a detector is told.
        settings: what the numbers depend on.
        run: what is written, kept and run beside.
        few: also each model, or without one nothing else, together with profiles of a few normal samples.
        mutual: also let the samples of each class score each other, see :mod:`medzsad.evaluation.mutual`.
        device: that these are compared on.
        progress: see :data:`Progress`.

    Raises:
        MedzsadError: if the data, a model, a setting or the output folder cannot be used.
    """
    settings, run = settings or EvaluationSettings(), run or RunSettings()
    samples = dataset.open()
    drawn = None if few is None else draw_normals(few, dataset, samples)
    samples = samples if drawn is None else drawn.samples
    for note in samples.notes:
        logger.info(note)
    detectors = load_detectors(models, settings, run)
    if mutual is not None:
        from medzsad.evaluation.mutual import mutual_detector

        detectors.append(mutual_detector(samples, settings, mutual, device=device, progress=progress))
    if run.out is not None:
        prepare_folder(run.out)
    evaluate_on = partial(
        evaluate,
        settings=settings,
        cache_folder=None if run.no_cache else predictions_folder(),
        batch_size=run.batch_size,
        progress=progress,
    )
    evaluation = evaluate_on(
        samples,
        detectors,
        references=run.references,
        case_files=partial(_case_files, run.out, samples) if run.out and run.save_maps else None,
    )
    if few is not None and drawn is not None:

        def outcome_of(some: SampleSet, detector: AnomalyDetector) -> DetectorOutcome:
            return evaluate_on(some, [detector], references=()).detectors[0]

        evaluation.detectors[len(detectors) : len(detectors)] = few_outcomes(
            few, drawn, detectors, settings, outcome_of
        )
    reused = sum(detector.reused for detector in evaluation.detectors)
    if reused:
        logger.info("%d predictions were taken from an earlier run (`no_cache` computes them anew)", reused)
    if run.out is not None:
        save_evaluation(evaluation, run.out)
    return evaluation


def run_share(
    dataset: DatasetQuery,
    models: Sequence[DetectorSpec | str],
    shard: str,
    settings: EvaluationSettings | None = None,
    run: RunSettings | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Make the predictions of one share of an evaluation, ``"3/10"``.

    See :func:`predict_share`, whose result it returns, and :func:`run_evaluation` for the arguments.
    """
    settings, run = settings or EvaluationSettings(), run or RunSettings()
    share, samples = Shard.parse(shard), dataset.open()
    detectors = load_detectors(models, settings, run)
    return predict_share(
        samples,
        detectors,
        settings,
        share,
        predictions_folder(),
        batch_size=run.batch_size,
        progress=progress,
    )


def load_detectors(
    models: Sequence[DetectorSpec | str], settings: EvaluationSettings, run: RunSettings
) -> list[AnomalyDetector]:
    """Load the detectors of an evaluation.

    Raises:
        BadInput: if a batch is more than one of them may get, or a name is given, and none has texts that it
            could be put into.
        ModelNotReady: if one cannot be loaded.
    """
    specs = [DetectorSpec(model=model) if isinstance(model, str) else model for model in models]
    detectors = [load_spec(spec, say=logger.info) for spec in specs]
    check_batches(detectors, run.batch_size)
    if (
        settings.class_name is not None
        and detectors
        and not any(detector.uses_organ for detector in detectors)
    ):
        names = ", ".join(detector.name for detector in detectors)
        raise BadInput(f"no texts of {names} name a class; leave `class_name` out")
    return detectors


def predictions_folder() -> Path:
    """Return the folder in the cache that predictions and evaluations are kept in."""
    return cache_folder() / "evaluations"


def _case_files(out: Path, samples: SampleSet, name: str, threshold: float) -> CaseFiles:
    return CaseFiles(out / name, name, threshold, title(samples.name, samples.doubt, samples.level))


def predict_share(
    samples: SampleSet,
    detectors: Sequence[AnomalyDetector],
    settings: EvaluationSettings,
    shard: Shard,
    cache_folder: Path,
    *,
    batch_size: int = 1,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Put the predictions of a share into the cache; an evaluation of the whole set finds them there.

    Figures are not merged from figures of the shares: ranks, intervals and region overlaps need all scores.

    Args:
        samples: the whole set.
        detectors: loaded detectors.
        settings: see the class.
        shard: which samples, by their ids.
        cache_folder: of all shares and of the evaluation.
        batch_size: images at once.
        progress: see :data:`Progress`.

    Returns:
        How many predictions the share has, and how many of them were there already.

    Raises:
        BadInput: if a file cannot be read, or a batch is more than a detector may get.
        OutputNotWritable: if predictions cannot be stored.
    """
    check_batches(detectors, batch_size)
    ours = [sample for sample in samples if shard.holds(sample.id)]
    total = found = 0
    for detector in detectors:
        framing, cache = framing_and_cache(samples, detector, settings, cache_folder)
        told = by_class(
            detector, samples.name, samples.layout, samples.classes, class_name=settings.class_name
        )
        steps: Iterable[Any] = progress(detector.name)(ours, total=len(ours)) if progress else ours
        if samples.is_volumetric:
            for sample in steps:
                one = told[sample.class_name]
                volume_prediction(one, sample, sample.read_scan(), cache.of(one))
                total += 1
        else:
            step = iter(steps)
            grey = is_shown_grey(detector, samples.name)
            for name, one in told.items():
                paths = [sample.image for sample in ours if sample.class_name == name]
                own = cache.of(one)
                for _ in predict_images(
                    one,
                    paths,
                    framing=framing,
                    cache=own,
                    batch_size=batch_size,
                    grey=grey,
                    modality=modality_of(samples.name),
                ):
                    next(step, None)
                    total += 1
            for _ in step:  # lets a progress bar end
                pass
        found += cache.found
    return total, found
