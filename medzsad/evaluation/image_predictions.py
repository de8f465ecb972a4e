"""Predictions of 2D images, in the framing that an evaluation asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medzsad.datasets.catalog import entries
from medzsad.datasets.images import read_image
from medzsad.detectors.mini.model import is_colour
from medzsad.errors import certain
from medzsad.evaluation.prediction_cache import PredictionCache, StoredPrediction, file_hash
from medzsad.scans.showing import LUMINANCE, is_radiology

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

READERS = 2
AHEAD = 8  # images read before they are needed


def predict_images(
    detector: AnomalyDetector,
    paths: Sequence[Path],
    *,
    framing: str,
    cache: PredictionCache,
    batch_size: int = 1,
    grey: bool = False,
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

    Yields:
        One prediction per path. A map has the resolution that the method gives (``"whole"``), or the image's
        (``"foreground"``).

    Raises:
        BadInput: if a file cannot be read.
    """
    if grey:
        detector = _without_colours(detector)
    if framing == "foreground":
        for path in paths:
            yield _cached(cache, path, partial(_predict_as_scan, detector, path))
        return
    with ThreadPoolExecutor(READERS) as pool:
        loaded = _ahead(pool, paths, cache)
        while group := list(islice(loaded, max(1, batch_size))):
            yield from _predict_group(detector, cache, group)


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
        key = file_hash(path) if cache.folder is not None else ""
        stored = cache.get(key)
        return key, stored, None if stored is not None else read_image(path)

    queue = iter(paths)
    waiting = [pool.submit(load, path) for path in islice(queue, AHEAD)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(load, path) for path in islice(queue, 1)]


def _cached(cache: PredictionCache, path: Path, compute: Callable[[], StoredPrediction]) -> StoredPrediction:
    key = file_hash(path) if cache.folder is not None else ""
    stored = cache.get(key)
    if stored is None:
        stored = compute()
        cache.put(key, stored)
    return stored


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
