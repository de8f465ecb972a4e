"""The cohort of a run scores itself: the model that knows its scans, made before the run itself begins."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medzsad.batch.manifest import ScanItem
from medzsad.batch.mutual_features import collect_on_ray, features_of
from medzsad.batch.predictor import PredictSettings, describe, fingerprint
from medzsad.batch.watch import Watch
from medzsad.batch.worker import Job, Worker
from medzsad.detectors.mutual.settings import FEWEST, MutualSettings
from medzsad.errors import BadInput, ModelNotReady, OutputNotWritable, explained
from medzsad.storage.hashing import hash_files

log = logging.getLogger(__name__)
SHOWN = ("series", "volume", "modality", "plane", "window", "roi", "volume_rules", "version")
"""Of :func:`~medzsad.batch.predictor.describe`, what decides which images a detector is shown."""


def mutual_settings(
    items: Sequence[ScanItem],
    settings: PredictSettings,
    mutual: MutualSettings,
    *,
    out: str,
    headers: Mapping[str, str] | None = None,
    watch: Watch | None = None,
    ray: str | None = None,
    jobs: int | None = None,
) -> PredictSettings:
    """Return the settings of a run with the model that the cohort of its scans is: a checkpoint in the cache.

    What is there of an earlier run (the features of a scan, or the whole model) is not made again.

    Args:
        items: the scans. One that cannot be read is left out here, and fails in the run.
        settings: of the run; ``model`` is replaced.
        mutual: how the cohort is compared.
        out: where the results of the run will lie.
        headers: HTTP headers that open a DICOMweb server.
        watch: is told of each scan, and of blocks of images while they are compared. None for a cohort, of
            whose scans nothing is said.
        ray: address of a Ray cluster that computes the features (:mod:`medzsad.batch.mutual_features`).
        jobs: how many workers there.

    Raises:
        BadInput: if fewer than three scans can be read, or they cannot be compared.
        ModelNotReady: if the features are not at hand.
        OutputNotWritable: if the cache cannot be written.
    """
    from medzsad.detectors.checkpoint import save_checkpoint
    from medzsad.inference.cohort import CohortFeatures, cohort_key, folder, score_cohort
    from medzsad.zoo.loading import load_features

    if settings.first_pass:
        raise BadInput("`first_pass` does not go with `mutual`: features are compared at one size alone.")
    if len(items) < FEWEST:
        raise BadInput(
            f"`mutual` compares scans with each other and takes {FEWEST} or more; there are {len(items)}"
        )
    told, watch = watch is not None, watch or Watch()
    features = CohortFeatures(mutual, device=settings.device, load=load_features)
    shown = replace(settings, threshold=None)
    description = describe(shown)
    ways = {name: description[name] for name in SHOWN}
    job = Job(shown, "", out, dict(headers or {}), flat=told)
    keys: dict[str, None] = {}
    reasons: list[str] = []
    missing: dict[str, ScanItem] = {}
    worker = Worker(job, watch)
    for item in items:
        try:
            key = features.key(_content(item), item=[item.series, item.modality, item.plane], **ways)
            if not features.ready(key):
                if ray is not None:
                    missing.setdefault(key, item)
                    continue
                features.keep(key, *features_of(item, features.collector, worker, watch))
            keys[key] = None
        except (ModelNotReady, OutputNotWritable):
            raise
        except Exception as error:  # of the scan alone: the run tells of it
            reasons.append(str(explained(error, item.source)))
    if ray is not None and missing:
        for key, reason in collect_on_ray(missing, features, job, ray, jobs):
            if reason:
                reasons.append(reason)
            else:
                keys[key] = None
    if len(keys) < FEWEST:
        doubled = len(items) - len(reasons) - len(keys)
        why = (reasons[:1] if told else []) + ([f"copies of others: {doubled}"] if doubled else [])
        raise BadInput(
            f"`mutual` compares scans with each other and takes {FEWEST} or more; {len(keys)} of "
            f"{len(items)} can be used" + (f" ({'; '.join(why)})" if why else "")
        )
    path = folder() / "cohorts" / cohort_key(mutual, keys) / f"mutual ({mutual.features}).safetensors"
    if not path.is_file():
        watch.phase(f"comparing {len(keys)} scans")
        detector = score_cohort(features, list(keys), progress=watch.slices("comparing"))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(detector.to_checkpoint(), path)
    return replace(settings, model=str(path))


def _content(item: ScanItem) -> str:
    """Return the hash of an input's files; what lies on a server is told by its URL alone."""
    return fingerprint(item) if item.is_remote or item.fault else hash_files(Path(item.source))
