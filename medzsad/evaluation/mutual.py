"""The samples of a data set score each other, class by class, as in MuSc's evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from medzsad.datasets.samples import SampleSet, VolumeSample
from medzsad.detectors.mutual.model import CohortScores, MutualDetector
from medzsad.detectors.mutual.settings import FEWEST, MutualSettings
from medzsad.errors import BadInput
from medzsad.evaluation.cache import PredictionCache
from medzsad.evaluation.image_sets import predict_images
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.inference.cohort import CohortFeatures, score_cohort
from medzsad.predicting import predict
from medzsad.storage.hashing import hash_files
from medzsad.zoo.loading import load_features


def mutual_detector(
    samples: SampleSet,
    settings: EvaluationSettings,
    mutual: MutualSettings,
    *,
    device: str = "auto",
    progress: Callable[[str], Callable[..., Iterable[Any]]] | None = None,
) -> MutualDetector:
    """Return the detector that knows the samples of a set; each class is a cohort of its own.

    Args:
        samples: the set, all of it: without a sample, the maps of the others are others.
        settings: of the evaluation.
        mutual: how samples are compared.
        device: as for :func:`medzsad.load_detector`.
        progress: gives, for a detector's name, a wrapper of the samples, and of blocks that are compared.

    Raises:
        BadInput: if a class has fewer than three different samples, or one cannot be read.
        OutputNotWritable: if features cannot be kept.
    """
    features = CohortFeatures(mutual, device=device, load=load_features)
    framing = features.collector.framing if settings.framing == "auto" else settings.framing
    steps = progress(features.collector.name)(samples, total=len(samples)) if progress else samples
    keys: dict[str, dict[str, None]] = {name: {} for name in samples.classes}
    for sample in steps:
        key = _features_of(sample, framing, features)
        if key is not None:
            keys[sample.class_name][key] = None
    cohorts, known = [], None
    for name, own in keys.items():
        if len(own) < FEWEST:
            raise BadInput(
                f"`mutual` compares the samples of a class with each other and takes {FEWEST} or more; "
                f"{name} of {samples.name} has {len(own)}"
            )
        known = score_cohort(
            features, list(own), progress=progress(f"comparing {name}") if progress else None
        )
        cohorts.append(CohortScores(known.digests, known.maps, known.scores, known.scale))
    if known is None:
        raise BadInput(f"{samples.name} has no samples to compare")
    count = sum(map(len, keys.values()))
    return MutualDetector(
        CohortScores.joined(cohorts),
        image_size=known.image_size,
        settings=known.settings | {"scans": count},
    )


def _features_of(sample: Any, framing: str, features: CohortFeatures) -> str | None:
    """Return the key of a sample's features, which are made where missing; None if it shows nothing."""
    collector = features.collector
    if isinstance(sample, VolumeSample):
        key = features.key(hash_files(sample.image), volume=sample.volume, framing="volume")
        if not features.ready(key):
            scan = sample.read_scan()
            result = predict(scan, collector)
            planes = [str(score.plane) for score in result.slice_scores]
            features.keep(key, collector.take(planes), str(scan.modality))
        return key
    key = features.key(hash_files(sample.image), framing=framing)
    if not features.ready(key):
        nowhere = PredictionCache(None, collector, {})
        for _ in predict_images(collector, [sample.image], framing=framing, cache=nowhere):
            pass
        if collector.is_empty:  # an image of a single value
            return None
        features.keep(key, collector.take(), "image")
    return key
