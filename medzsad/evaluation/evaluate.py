"""Detectors on a data set: the figures of the papers, with the trivial references beside them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.datasets.catalog import entries
from medzsad.datasets.claims import custom, sets_of
from medzsad.datasets.samples import SampleSet
from medzsad.detectors.volume_rules import NO_RULES
from medzsad.errors import BadInput
from medzsad.evaluation.cache import PredictionCache
from medzsad.evaluation.image_sets import evaluate_images, is_shown_grey, modality_of, threshold_for
from medzsad.evaluation.outcome import (
    ClassOutcome,
    DetectorOutcome,
    Evaluation,
    mean_figures,
    published_beside,
)
from medzsad.evaluation.settings import REFERENCES, EvaluationSettings
from medzsad.evaluation.volume_sets import evaluate_volumes
from medzsad.limits import SMALLEST_SIDE, check_batch
from medzsad.results.lesions import parse_threshold
from medzsad.scans.scan import Modality

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.evaluation.case_files import CaseFiles

# Sets that are other preparations of the same images.
SAME_IMAGES = {"dagm-balanced": "dagm", "covid19-all": "covid19"}


def evaluate(
    samples: SampleSet,
    detectors: Sequence[AnomalyDetector],
    settings: EvaluationSettings | None = None,
    *,
    references: Sequence[str] = REFERENCES,
    cache_folder: Path | None = None,
    batch_size: int = 1,
    case_files: Callable[[str, float], CaseFiles] | None = None,
    progress: Callable[[str], Callable[..., Iterable[Any]]] | None = None,
) -> Evaluation:
    """Evaluate detectors on a data set.

    >>> samples = open_dataset("brainmri", "/data/brainmri")                  # doctest: +SKIP
    >>> outcome = evaluate(samples, [load_detector("medzsad-mini")])          # doctest: +SKIP
    >>> outcome.detectors[0].mean["image"]["auroc"]                           # doctest: +SKIP
    Figure(value=0.91, interval=(0.87, 0.94), bounds=None, reason=None)

    Args:
        samples: from :func:`medzsad.datasets.opening.open_dataset`.
        detectors: loaded detectors.
        settings: see the class.
        references: names of trivial references to run beside them.
        cache_folder: where predictions are kept, so that an interrupted run goes on; None keeps none. Those
            of references, which take no time, are never kept.
        batch_size: images at once.
        case_files: gives, for a detector's name and its threshold, what stores maps and draws cases.
        progress: gives, for a detector's name, a wrapper of the samples, e.g. ``tqdm``.

    Raises:
        BadInput: if the data cannot be read, two detectors have one name, a batch is more than one of them
            may get, or foregrounds are asked for that the set does not have.
        OutputNotWritable: if predictions or maps cannot be stored.
    """
    from medzsad.zoo.loading import load_detector

    settings = settings or EvaluationSettings()
    if not samples.is_volumetric:
        settings = settings.for_set(samples.name)
    if settings.foreground_only:
        _require_foregrounds(samples)
    outcomes = []
    names = [detector.name for detector in detectors]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(
                f"two models are called {name}; rename one of the files, so that they can be told apart"
            )
    check_batches(detectors, batch_size)
    runs = [(detector, False) for detector in detectors]
    runs += [(load_detector(name, device="cpu"), True) for name in references if name not in names]
    for detector, is_reference in runs:
        outcomes.append(
            _run(
                samples,
                detector,
                settings,
                is_reference=is_reference,
                cache_folder=None if is_reference else cache_folder,
                batch_size=batch_size,
                case_files=None if is_reference else case_files,
                progress=progress(detector.name) if progress else None,
            )
        )
    return Evaluation(
        dataset=samples.name,
        level=samples.level,
        layout=samples.layout,
        samples=len(samples),
        detectors=outcomes,
        published=published_beside(samples),
        settings=settings,
        notes=samples.notes,
        versions=_versions(),
        doubt=samples.doubt,
    )


def check_batches(detectors: Iterable[AnomalyDetector], batch_size: int) -> None:
    """Raise BadInput if a batch is more than one of the detectors, or any whatever, may get."""
    for size in (SMALLEST_SIDE, *(detector.image_size for detector in detectors)):
        check_batch(size, batch_size, f"a batch of {batch_size} images")


def _run(
    samples: SampleSet,
    detector: AnomalyDetector,
    settings: EvaluationSettings,
    *,
    is_reference: bool,
    cache_folder: Path | None,
    batch_size: int,
    case_files: Callable[[str, float], CaseFiles] | None,
    progress: Callable[..., Iterable[Any]] | None,
) -> DetectorOutcome:
    begin = time.perf_counter()
    framing, cache = framing_and_cache(samples, detector, settings, cache_folder)
    threshold = settings.threshold
    if threshold is None:
        rule = parse_threshold(threshold_for(detector, samples))
        threshold = rule if isinstance(rule, float) else 0.5
    files = case_files(detector.name, threshold) if case_files else None
    if samples.is_volumetric:
        classes, mode = evaluate_volumes(
            detector,
            samples,
            settings,
            threshold=threshold,
            cache=cache,
            keep=files.keep_volume if files else None,
            progress=progress,
        )
    else:
        classes, mode = evaluate_images(
            detector,
            samples,
            settings,
            framing=framing,
            threshold=threshold,
            cache=cache,
            batch_size=batch_size,
            keep=files.keep_image if files else None,
            progress=progress,
        )
    if files is not None:
        files.finish(classes)
    return DetectorOutcome(
        name=detector.name,
        reference=is_reference,
        zero_shot=not _knows_normals(detector)
        and not any(has_seen(detector.seen, name) for name in _may_be(samples)),
        classes=classes,
        mean=mean_figures(classes),
        settings={**detector.settings, **_class_names(classes)},
        framing="volume" if samples.is_volumetric else framing,
        threshold=threshold,
        mode=mode,
        seconds=round(time.perf_counter() - begin, 2),
        reused=cache.found,
    )


def _knows_normals(detector: AnomalyDetector) -> bool:
    """Whether a detector is a profile of normal scans, or has one as a part."""
    return any(one.method == "normals" for one in (detector, *detector.parts))


def _may_be(samples: SampleSet) -> tuple[str, ...]:
    """Return the data sets whose images these may be."""
    return sets_of(custom(samples.name)) if samples.doubt else (samples.name,)


def _class_names(classes: Sequence[ClassOutcome]) -> dict[str, Any]:
    """Return the setting that says what texts called the images; nothing of a method without texts."""
    names = {one.name: one.class_name for one in classes if one.class_name is not None}
    different = set(names.values())
    return {"class_name": names if len(different) > 1 else different.pop()} if names else {}


def framing_and_cache(
    samples: SampleSet, detector: AnomalyDetector, settings: EvaluationSettings, folder: Path | None
) -> tuple[str, PredictionCache]:
    """Return what a detector is shown of 2D images, and where its predictions of the set are kept."""
    framing = detector.framing if settings.framing == "auto" else settings.framing
    for one in (detector, *detector.parts):
        if one.method == "normals" and one.framing != framing and not samples.is_volumetric:
            raise BadInput(
                f"{one.name} was made of normal images as `framing` {one.framing} shows them, and cannot be "
                f"shown images as {framing}; give `framing` {one.framing}"
            )
    key: dict[str, Any] = {"framing": "volume" if samples.is_volumetric else framing}
    if samples.is_volumetric and detector.volume_rules != NO_RULES:
        key["volume_rules"] = asdict(detector.volume_rules)
    if not samples.is_volumetric and is_shown_grey(detector, samples.name):
        ultrasound = modality_of(samples.name) is Modality.US
        key["shown"] = "ultrasound" if ultrasound else "grey"
    return framing, PredictionCache(folder, detector, key)


def has_seen(seen: Iterable[str], dataset: str) -> bool:
    """Whether a detector that was trained on ``seen`` has seen the data set, so that it is not zero-shot.

    A set counts as seen if a part of it or another preparation of its images was, or images under its name
    that may be others. "All 14 sets" are sets of the papers: not a folder of one's own, nor a set outside
    their benchmarks.
    """
    entry = entries().get(dataset)
    of_papers = entry is not None and (entry.paper or dataset in SAME_IMAGES)
    images = SAME_IMAGES.get(dataset, dataset)
    return any(
        SAME_IMAGES.get(name, name) == images or (name.startswith("all ") and of_papers)
        for claimed in seen
        for name in sets_of(claimed)
    )


def _require_foregrounds(samples: SampleSet) -> None:
    without = [sample.id for sample in samples if getattr(sample, "foreground", None) is None]
    if without:
        raise BadInput(
            f"{len(without)} of {len(samples)} samples of {samples.name} come without a foreground mask, the "
            f"first {without[0]}; leave `foreground_only` out"
        )


def _versions() -> dict[str, str]:
    import numpy
    import torch

    from medzsad import __version__

    return {
        "medzsad": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
