"""A share of an evaluation's predictions, made ahead by one of many machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.datasets.catalog import by_class
from medzsad.datasets.samples import SampleSet
from medzsad.evaluation.evaluate import check_batches, framing_and_cache
from medzsad.evaluation.image_predictions import is_shown_grey, predict_images
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.evaluation.volume_sets import volume_prediction
from medzsad.storage.sharding import Shard

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector


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
