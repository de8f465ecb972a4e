"""What ``medzsad evaluate`` does, from names to files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.datasets.catalog import by_class
from medzsad.datasets.claims import title
from medzsad.datasets.opening import open_dataset
from medzsad.datasets.samples import SampleSet
from medzsad.detectors.organs import name_of
from medzsad.errors import BadInput
from medzsad.evaluation.evaluate import REFERENCES, check_batches, evaluate, framing_and_cache
from medzsad.evaluation.image_sets import is_shown_grey, predict_images
from medzsad.evaluation.outcome import Evaluation
from medzsad.evaluation.reporting import save_evaluation
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.evaluation.volume_sets import volume_prediction
from medzsad.results.writing import prepare_folder
from medzsad.storage.cache import cache_folder
from medzsad.storage.hashing import Shard
from medzsad.zoo.loading import clip_weights_of, load_detector

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.evaluation.case_files import CaseFiles


def run_evaluation(
    dataset: str,
    root: Path | None,
    models: Sequence[str],
    *,
    out: Path | None = None,
    save_maps: bool = False,
    split: str = "test",
    classes: Sequence[str] = (),
    limit: int | None = None,
    channel: str | None = None,
    size: int | None = 518,
    framing: str = "auto",
    mode: str = "auto",
    fpr_limit: float = 0.3,
    threshold: float | None = None,
    foreground_only: bool = False,
    min_lesion_ml: float = 0.0,
    masks: str = "auto",
    resamples: int = 1000,
    seed: int = 0,
    no_references: bool = False,
    organ: str | None = None,
    class_name: str | None = None,
    clip_weights: str | None = None,
    batch_size: int = 1,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "torch",
    no_cache: bool = False,
    say: Callable[[str], None] | None = None,
    progress: Callable[[str], Callable[..., Iterable[Any]]] | None = None,
) -> Evaluation:
    """Evaluate models on a data set and write the results.

    Args:
        dataset, root, split, classes, limit, channel: for :func:`~medzsad.datasets.opening.open_dataset`.
        models: names or checkpoints for :func:`medzsad.load_detector`, with ``organ``, ``clip_weights``,
            ``device``, ``precision`` and ``backend``.
        out: folder of the results; None writes nothing.
        save_maps: also write all maps and contact sheets.
        size, framing, mode, fpr_limit, threshold, foreground_only, min_lesion_ml, masks, resamples, seed: see
            :class:`~medzsad.evaluation.settings.EvaluationSettings`.
        no_references: leave out the trivial references.
        class_name: what texts call all images, instead of the names of the set's classes; so does an
            ``organ``, with the name that it has.
        batch_size: images at once.
        no_cache: keep no predictions.
        say: gets notes about the data and the models, line by line.
        progress: see :func:`~medzsad.evaluation.evaluate.evaluate`.

    Raises:
        MedzsadError: if the data, a model, an option or the output folder cannot be used.
    """
    check_batches((), batch_size)
    settings = EvaluationSettings(
        size=size,
        framing=framing,
        mode=mode,
        masks=masks,
        fpr_limit=fpr_limit,
        threshold=threshold,
        resamples=resamples,
        seed=seed,
        foreground_only=foreground_only,
        minimum_lesion_ml=min_lesion_ml,
        class_name=name_of(organ, class_name),
    )
    samples = open_dataset(
        dataset, root, split=split, classes=classes or None, limit=limit, seed=seed, channel=channel
    )
    if say is not None:
        for note in samples.notes:
            say(note)
    detectors = load_detectors(
        models,
        clip_weights,
        batch_size=batch_size,
        device=device,
        precision=precision,
        organ=organ,
        backend=backend,
        say=say,
    )
    _check_named(detectors, class_name)
    if out is not None:
        prepare_folder(out)
    evaluation = evaluate(
        samples,
        detectors,
        settings,
        references=() if no_references else REFERENCES,
        cache_folder=None if no_cache else cache_folder() / "evaluations",
        batch_size=batch_size,
        case_files=_case_files(out, title(samples.name, samples.doubt, samples.level), detectors, settings)
        if save_maps and out
        else None,
        progress=progress,
    )
    reused = sum(detector.reused for detector in evaluation.detectors)
    if reused and say:
        say(f"{reused} predictions were taken from an earlier run (`no_cache` computes them anew)")
    if out is not None:
        save_evaluation(evaluation, out)
    return evaluation


def run_share(
    dataset: str,
    root: Path | None,
    models: Sequence[str],
    shard: str,
    *,
    split: str = "test",
    classes: Sequence[str] = (),
    limit: int | None = None,
    channel: str | None = None,
    seed: int = 0,
    framing: str = "auto",
    organ: str | None = None,
    class_name: str | None = None,
    clip_weights: str | None = None,
    batch_size: int = 1,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "torch",
    progress: Callable[[str], Callable[..., Iterable[Any]]] | None = None,
) -> tuple[int, int]:
    """Make the predictions of one share of an evaluation: see
    :func:`~medzsad.evaluation.command.predict_share`, whose result it returns.

    Args:
        shard: ``"3/10"``.
        dataset, root, models: and all others as for :func:`run_evaluation`.

    Raises:
        MedzsadError: if the data, a model, an option or the cache cannot be used.
    """
    from medzsad.evaluation.command import predict_share
    from medzsad.storage.hashing import Shard

    check_batches((), batch_size)
    share = Shard.parse(shard)
    settings = EvaluationSettings(framing=framing, seed=seed, class_name=name_of(organ, class_name))
    samples = open_dataset(
        dataset, root, split=split, classes=classes or None, limit=limit, seed=seed, channel=channel
    )
    detectors = load_detectors(
        models,
        clip_weights,
        batch_size=batch_size,
        device=device,
        precision=precision,
        organ=organ,
        backend=backend,
    )
    _check_named(detectors, class_name)
    folder = cache_folder() / "evaluations"
    return predict_share(
        samples, detectors, settings, share, folder, batch_size=batch_size, progress=progress
    )


def load_detectors(
    models: Sequence[str], clip_weights: str | None, *, batch_size: int, **options: Any
) -> list[AnomalyDetector]:
    """Load the detectors of an evaluation.

    Args:
        models, clip_weights: names or checkpoints, and the weights of those that have a CLIP inside.
        batch_size: images at once.
        options: further ones of :func:`medzsad.load_detector`.

    Raises:
        BadInput: if a batch is more than one of them may get.
        ModelNotReady: if one cannot be loaded.
    """
    weights = clip_weights_of(models, clip_weights)
    detectors = [load_detector(model, clip_weights=own, **options) for model, own in weights.items()]
    check_batches(detectors, batch_size)
    return detectors


def _check_named(detectors: Sequence[AnomalyDetector], class_name: str | None) -> None:
    """Raise BadInput where a name is given, and no model has texts that it could be put into."""
    if class_name is not None and not any(detector.uses_organ for detector in detectors):
        names = ", ".join(detector.name for detector in detectors)
        raise BadInput(f"no texts of {names} name a class; leave `class_name` out")


def _case_files(
    out: Path, title: str, detectors: Sequence[AnomalyDetector], settings: EvaluationSettings
) -> Callable[[str], CaseFiles]:
    from medzsad.evaluation.case_files import CaseFiles
    from medzsad.results.thresholds import parse_threshold

    def make(name: str) -> CaseFiles:
        rule = parse_threshold(next(d.threshold for d in detectors if d.name == name))
        value = rule if isinstance(rule, float) else 0.5
        chosen = value if settings.threshold is None else settings.threshold
        return CaseFiles(out / name, name, chosen, title)

    return make


def predict_share(
    samples: SampleSet,
    detectors: Sequence[AnomalyDetector],
    settings: EvaluationSettings,
    shard: Shard,
    cache_folder: Path,
    *,
    batch_size: int = 1,
    progress: Callable[[str], Callable[..., Iterable[Any]]] | None = None,
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
        progress: gives, for a detector's name, a wrapper of the samples, e.g. ``tqdm``.

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
                    one, paths, framing=framing, cache=own, batch_size=batch_size, grey=grey
                ):
                    next(step, None)
                    total += 1
            for _ in step:  # lets a progress bar end
                pass
        found += cache.found
    return total, found
