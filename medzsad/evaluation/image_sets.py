"""One detector on a set of 2D images, in the framing that an evaluation asks for."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medzsad.datasets.catalog import by_class, entries
from medzsad.datasets.images import read_image, resize_mask
from medzsad.datasets.samples import Sample, SampleSet
from medzsad.detectors.base import resize_maps
from medzsad.detectors.mini.routing import is_colour
from medzsad.detectors.normals.combination import highest_evidence, joined_maps, joined_score
from medzsad.errors import certain
from medzsad.evaluation.cache import PredictionCache, StoredPrediction
from medzsad.evaluation.outcome import ClassOutcome
from medzsad.evaluation.pooling import PixelPool, image_level
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.metrics.ranking import rank
from medzsad.metrics.undefined import value_of
from medzsad.scans.modality import LUMINANCE, is_radiology
from medzsad.scans.scan import Modality

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

READERS = 2
LOOKED_AT = 8  # images that tell what a set shows
AHEAD = 8  # images read before they are needed


def predict_images(
    detector: AnomalyDetector,
    paths: Sequence[Path],
    *,
    framing: str,
    cache: PredictionCache,
    batch_size: int = 1,
    grey: bool = False,
    modality: Modality | None = None,
) -> Iterator[StoredPrediction]:
    """Predicts images in order.

    Args:
        detector: the detector.
        paths: image files.
        framing: ``"whole"`` or ``"foreground"``, see
            :class:`~medzsad.evaluation.settings.EvaluationSettings`.
        cache: where predictions are looked up and kept.
        batch_size: images at once (``"whole"`` only), where their sizes agree.
        grey: show the images without colours (:func:`is_shown_grey`).
        modality: how the images came about, where that is known (:func:`modality_of`).

    Yields:
        One prediction per path. A map has the resolution that the method gives (``"whole"``), or the image's
        (``"foreground"``).

    Raises:
        BadInput: if a file cannot be read.
    """
    if detector.parts:
        parts = zip(detector.parts, cache.parts, strict=True)
        predictions = [
            predict_images(
                part,
                paths,
                framing=framing,
                cache=own,
                batch_size=batch_size,
                grey=grey and part.tells_colours,
                modality=modality,
            )
            for part, own in parts
        ]
        yield from map(_joined, *predictions)
        return
    if modality is not None:
        detector = detector.for_modality(modality)
    if grey:
        detector = _without_colours(detector)
    if framing == "foreground":
        for path in paths:
            yield cache.fetch(path, partial(_predict_as_scan, detector, path))
        return
    with ThreadPoolExecutor(READERS) as pool:
        loaded = _ahead(pool, paths, cache)
        while group := list(islice(loaded, max(1, batch_size))):
            yield from _predict_group(detector, cache, group)


def modality_of(dataset: str) -> Modality | None:
    """Return the modality that the catalogue says a set's images are of; None of data of one's own.

    Grey images that are known to be medical, such as OCT, go the way of MR: they are no photographs.
    """
    entry = entries().get(dataset)
    if entry is None or entry.modality is None:
        return None
    modality = Modality(entry.modality)
    return Modality.MR if modality is Modality.GREY else modality


def threshold_for(detector: AnomalyDetector, samples: SampleSet) -> float | str:
    """Return the threshold that a detector has for a set: one, whatever networks its images go through.

    That for slices of volumes; else that for the modality that the catalogue knows; of images of one's own,
    that for what most of a few of them, from the whole set, look like.

    Raises:
        BadInput: if an image cannot be read.
    """
    if samples.is_volumetric:
        return detector.for_volume().threshold
    if not detector.tells_colours:
        return detector.threshold
    modality = modality_of(samples.name)
    if modality is not None:
        return detector.for_modality(modality).threshold
    few = samples.samples[:: max(1, len(samples) // LOOKED_AT)]
    images = (torch.from_numpy(read_image(sample.image))[None] for sample in few)
    thresholds = Counter(detector.for_images(image).threshold for image in images)
    return thresholds.most_common(1)[0][0]


def _joined(first: StoredPrediction, second: StoredPrediction) -> StoredPrediction:
    """Return the prediction of a combination from those of its detector and its profile."""
    maps = [torch.from_numpy(prediction.anomaly_map)[None] for prediction in (first, second)]
    size = max((one.shape[-2:] for one in maps), key=lambda shape: shape[0] * shape[1])
    own, beside = (resize_maps(one, size)[0] for one in maps)
    inside = own > 0  # a scan's map is 0 outside of the foreground
    joined = joined_maps(own, beside) * inside
    highest = highest_evidence(joined, inside)
    scores = (joined_score(torch.tensor(value), highest) for value in (first.score, first.probability))
    return StoredPrediction(joined.numpy(), *map(float, scores))


def is_shown_grey(detector: AnomalyDetector, dataset: str) -> bool:
    """Return whether a detector that tells colours is to take a set's images for grey ones.

    Those of radiology are: a coloured mark or a tint must not send them to the network for photographs.

    Args:
        detector: all others see images as they are.
        dataset: a name of the catalogue, which says how the images came about.
    """
    entry = entries().get(dataset)
    return detector.tells_colours and entry is not None and is_radiology(entry.modality)


def _without_colours(detector: AnomalyDetector) -> AnomalyDetector:
    """Return the detector, for which an image that it would take for coloured is its luminance.

    All others stay as they are, so that they get the numbers that ``medzsad predict`` gives.
    """
    weights = torch.from_numpy(LUMINANCE).view(1, 3, 1, 1)

    def preprocess(images: Tensor) -> Tensor:
        inputs = detector.preprocess(images)
        grey = (inputs * weights.to(inputs)).sum(1, keepdim=True).expand_as(inputs)
        return torch.where(is_colour(inputs).view(-1, 1, 1, 1), grey, inputs)

    other = copy.copy(detector)
    other.preprocess = preprocess  # type: ignore[method-assign]  # of this object alone
    return other


def _predict_group(
    detector: AnomalyDetector,
    cache: PredictionCache,
    group: list[tuple[str, StoredPrediction | None, np.ndarray | None]],
) -> Iterator[StoredPrediction]:
    done: dict[int, StoredPrediction] = {i: stored for i, (_, stored, _) in enumerate(group) if stored}
    missing = {i: certain(pixels) for i, (_, _, pixels) in enumerate(group) if i not in done}
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i, pixels in missing.items():
        sizes.setdefault(pixels.shape, []).append(i)
    for members in sizes.values():
        images = torch.from_numpy(np.stack([missing[i] for i in members]))
        prediction = detector.predict_at_own_size(images)
        for position, i in enumerate(members):
            done[i] = StoredPrediction(
                prediction.anomaly_map[position].cpu().numpy(),
                float(prediction.image_score[position]),
                float(prediction.image_probability[position]),
            )
            cache.put(group[i][0], done[i])
    yield from (done[i] for i in range(len(group)))


def _ahead(
    pool: ThreadPoolExecutor, paths: Iterable[Path], cache: PredictionCache
) -> Iterator[tuple[str, StoredPrediction | None, np.ndarray | None]]:
    """Key, stored prediction or image of each path, in order, some read ahead by other threads."""

    def load(path: Path) -> tuple[str, StoredPrediction | None, np.ndarray | None]:
        key = cache.key_of(path)
        stored = cache.get(key)
        return key, stored, None if stored is not None else read_image(path)

    queue = iter(paths)
    waiting = [pool.submit(load, path) for path in islice(queue, AHEAD)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(load, path) for path in islice(queue, 1)]


def _predict_as_scan(detector: AnomalyDetector, path: Path) -> StoredPrediction:
    """Return what ``medzsad predict`` gives for an image, as (rows, columns).

    ``predict`` refuses an image of one value. Data sets have such (slices beyond the body), and a set must
    not fail because of one: nothing is found in it.
    """
    from medzsad.predicting import predict
    from medzsad.scans.readers import read_scan

    pixels = read_image(path)
    if pixels.min() == pixels.max():
        return StoredPrediction(np.zeros(pixels.shape[1:], np.float32), 0.0, 0.0)
    result = predict(read_scan(path), detector)
    only = result.slice_scores[0] if result.slice_scores else None
    return StoredPrediction(
        np.ascontiguousarray(result.anomaly_map[:, :, 0].T),
        result.score,
        only.probability if only else 0.0,
    )


Keep = Callable[[Sample, np.ndarray], None]


def evaluate_images(
    detector: AnomalyDetector,
    samples: SampleSet,
    settings: EvaluationSettings,
    *,
    framing: str,
    threshold: float,
    cache: PredictionCache,
    batch_size: int = 1,
    keep: Keep | None = None,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> tuple[list[ClassOutcome], str]:
    """Evaluate a detector class by class.

    Args:
        detector: the detector; its texts speak of each class in turn.
        samples: 2D images, with masks where ``samples.level`` is ``"pixel"``.
        settings: the evaluation's.
        framing: ``"whole"`` or ``"foreground"``.
        threshold: of the map, for Dice.
        cache: of predictions.
        batch_size: images at once.
        keep: gets each sample and its map, float32 (H, W), at the image's own size, to store it.
        progress: wraps the samples, e.g. ``tqdm``; gets ``total``.

    Returns:
        The outcome of each class, in order, and ``"exact"`` or ``"histogram"``.

    Raises:
        BadInput: if an image or a mask cannot be read.
    """
    rule = settings.for_set(samples.name).masks
    steps = iter(progress(samples, total=len(samples)) if progress else samples)
    outcomes, modes = [], set()
    told = by_class(detector, samples.name, samples.layout, samples.classes, class_name=settings.class_name)
    for name in samples.classes:
        members = [sample for sample in samples.images if sample.class_name == name]
        predictions = predict_images(
            told[name],
            [s.image for s in members],
            framing=framing,
            cache=cache.of(told[name]),
            batch_size=batch_size,
            grey=is_shown_grey(detector, samples.name),
            modality=modality_of(samples.name),
        )
        draws = settings.draws(len(members))
        pool = PixelPool(settings, threshold, draws=draws) if samples.level == "pixel" else None
        cases = []
        for sample, prediction in zip(members, predictions, strict=True):
            next(steps, None)
            case: dict[str, Any] = {
                "id": sample.id,
                "kind": sample.kind,
                "label": sample.label,
                "score": prediction.score,
                "probability": prediction.probability,
            }
            if pool is not None:
                mask = sample.read_mask(rule)
                anomaly_map, mask = on_grid(prediction.anomaly_map, mask, settings.size, rule)
                pool.add(anomaly_map, mask)
                case |= _case_figures(anomaly_map, mask)
            if keep is not None:
                keep(sample, prediction.anomaly_map)
            cases.append(case)
        outcome = image_level(name, cases, draws, class_name=told[name].class_name)
        if pool is not None:
            figures, curves = pool.finish()
            figures["best_dice"] = figures.pop("dice_best")
            outcome.figures["pixel"], outcome.curves["pixel"] = figures, curves
            modes.add(pool.mode)
        outcomes.append(outcome)
    for _ in steps:  # lets a progress bar end
        pass
    return outcomes, "histogram" if "histogram" in modes else "exact"


def on_grid(
    anomaly_map: np.ndarray, mask: np.ndarray, size: int | None, rule: str = "half"
) -> tuple[np.ndarray, np.ndarray]:
    """Return map and mask on the grid that they are compared at.

    Args:
        anomaly_map: float32 (h, w), of any resolution.
        mask: bool (H, W).
        size: side of a square; None for the mask's own grid.
        rule: how the mask is resized, see :func:`medzsad.datasets.images.resize_mask`.
    """
    if size is not None:
        mask = resize_mask(mask, size, rule)
    resized = resize_maps(torch.from_numpy(np.ascontiguousarray(anomaly_map))[None], mask.shape)
    return resized[0].numpy(), mask


def _case_figures(anomaly_map: np.ndarray, mask: np.ndarray) -> dict[str, float | None]:
    """AP of one image's pixels, by which cases are ranked; None if all or none are anomalous."""
    value = value_of(rank(anomaly_map, mask).ap)
    return {"pixel_ap": float(value) if isinstance(value, float) else None}
