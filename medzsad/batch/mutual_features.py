"""Features of scans that score each other, here or on a Ray cluster: of each scan once.

Workers on a cluster write them to the place of the results, which all machines reach; from there they go to
the cache of the machine that compares them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from medzsad.batch.manifest import ScanItem
from medzsad.batch.on_ray import answers_on_ray, check_shared
from medzsad.batch.predictor import Predictor
from medzsad.batch.store import open_store
from medzsad.batch.watch import Watch
from medzsad.batch.worker import Job, Worker
from medzsad.detectors.mutual.settings import MutualSettings
from medzsad.errors import BadInput, ModelNotReady, OutputNotWritable, certain, explained
from medzsad.heap import keep_freed_memory
from medzsad.results.ranking import shortened

if TYPE_CHECKING:
    from torch import Tensor

    from medzsad.inference.cohort import CohortFeatures, FeatureCollector

FOLDER = "features"  # at the place of the results, while they are on their way
BEGUN = f"{FOLDER}/begun"


def features_of(
    item: ScanItem, collector: FeatureCollector, worker: Worker, watch: Watch
) -> tuple[dict[str, Tensor], str]:
    """Return the features of a scan (see :meth:`FeatureCollector.take`) and its modality."""
    if item.fault:
        raise BadInput(item.fault)
    predictor = Predictor(worker.job.settings, collector)
    with worker.at_hand(item, []) as (source, name):
        watch.phase(f"reading {shortened(name)}")
        scan = predictor.read(source, name, series=item.series, modality=item.modality)
        watch.phase(f"features of {shortened(name)}")
        try:
            result = predictor.predict(scan, plane=item.plane, progress=watch.slices(shortened(name)))
            planes = [] if scan.is_2d else [str(score.plane) for score in result.slice_scores]
            return collector.take(planes), str(scan.modality)
        finally:
            collector.forget()


def collect_on_ray(
    missing: Mapping[str, ScanItem], features: CohortFeatures, job: Job, address: str, jobs: int | None
) -> Iterator[tuple[str, str]]:
    """Have the features of scans made on a cluster, and keep them; yield each one's key, and why it failed.

    Args:
        missing: scans by the key of their features.
        features: where they are kept.
        job: how scans are shown, and the place of the results.
        address, jobs: see :func:`~medzsad.batch.on_ray.on_ray`.

    Raises:
        MedzsadError: if no scan can be done: no cluster, no backbone, no place that all machines share.
    """
    store = open_store(job.out)
    store.prepare()
    store.write(BEGUN, b"")
    rows = {key: {"key": key, "item": json.dumps(asdict(item))} for key, item in missing.items()}
    try:
        for answer in answers_on_ray(rows, RayCollector, (features.settings,), job, address, jobs):
            key = answer["scan"]
            if not answer["reason"]:
                path = _path(key)
                features.adopt(key, certain(store.read(path)), answer["modality"])
                store.remove(path)
            yield key, answer["reason"]
    finally:
        for name in store.names(FOLDER):
            store.remove(f"{FOLDER}/{name}")


def _path(key: str) -> str:
    return f"{FOLDER}/{key}.safetensors"


class RayCollector:
    """Makes features of one scan after another; its backbone is loaded once.

    Args:
        job: how scans are shown.
        mutual: which backbone.
    """

    def __init__(self, job: Job, mutual: MutualSettings) -> None:
        self._job, self._mutual = job, mutual
        self._worker: Worker | None = None
        self._features: CohortFeatures | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        key, item = row["key"], ScanItem(**json.loads(row["item"]))
        try:
            answer = {"scan": key, "reason": "", "modality": self._collect(key, item)}
        except (ModelNotReady, OutputNotWritable) as error:
            answer = {"fatal": type(error).__name__, "message": str(error)}
        except Exception as error:  # of the scan alone
            answer = {"scan": key, "reason": str(explained(error, item.source))}
        return {"row": json.dumps(answer)}

    def _collect(self, key: str, item: ScanItem) -> str:
        from safetensors.torch import save

        from medzsad.inference.cohort import CohortFeatures
        from medzsad.zoo.loading import load_features

        if self._worker is None or self._features is None:
            keep_freed_memory()
            self._worker = Worker(self._job)
            check_shared(self._worker.store, BEGUN)
            self._features = CohortFeatures(
                self._mutual, device=self._job.settings.device, load=load_features
            )
        tensors, modality = features_of(item, self._features.collector, self._worker, Watch())
        self._worker.store.write(_path(key), save(tensors))
        return modality
