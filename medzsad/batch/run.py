"""A cohort from its manifest to its table: what is missing is done, what is there stays."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from medzsad.batch.cache_key import describe, digest_of
from medzsad.batch.local import in_processes, in_this_process
from medzsad.batch.manifest import ScanItem, read_manifest
from medzsad.batch.merging import merge
from medzsad.batch.predictor import PredictSettings
from medzsad.batch.progress import progress_of
from medzsad.batch.records import FAILED, Row
from medzsad.batch.store import OUTCOME, READERS, SETTINGS, ResultStore, open_store, place_of
from medzsad.batch.summary import Summary
from medzsad.batch.table import PartWriter, require_pyarrow
from medzsad.batch.worker import Job, settled
from medzsad.errors import BadInput
from medzsad.limits import check_limit
from medzsad.storage.sharding import Shard
from medzsad.storage.text_files import parse_json


def run_cohort(
    inputs: Iterable[str],
    out: str | os.PathLike[str],
    settings: PredictSettings,
    *,
    jobs: int | None = None,
    ray: str | None = None,
    shard: Shard | None = None,
    retry_failed: bool = False,
    headers: Mapping[str, str] | None = None,
    bar: bool = False,
) -> Summary:
    """Predicts a cohort of scans; a run that was stopped, or failed, is gone on with by running it again.

    >>> settings = PredictSettings(model="medzsad-mini", overlay="none")        # doctest: +SKIP
    >>> run_cohort(["scans.csv"], "s3://bucket/out", settings, ray="auto")      # doctest: +SKIP

    Args:
        inputs: see :func:`~medzsad.batch.manifest.read_manifest`.
        out: folder or fsspec URL of the results.
        settings: how scans are predicted.
        jobs: how many workers: processes here (0: none but this one; by default 1), or actors on Ray. A
            script that asks for processes needs the usual ``if __name__ == "__main__"``.
        ray: address of a Ray cluster, or ``"auto"``; None for workers here.
        shard: do only this share of the scans, and leave merging to :func:`~medzsad.batch.merging.merge`.
        retry_failed: try scans again that failed, though their input is still the same.
        headers: HTTP headers that open a DICOMweb server.
        bar: show a progress bar where stderr is a terminal.

    Returns:
        What became of the scans.

    Raises:
        MedzsadError: if no scan can be done for a reason that is not its own: options, the manifest, the
            model, or the place of the results. What is done stays.
    """
    require_pyarrow()
    settings.formats()
    if ray is not None:
        from medzsad.batch.on_ray import check_address

        check_address(ray)
    began = time.monotonic()
    shard = shard or Shard()
    items = read_manifest(inputs, headers, series=settings.series)
    share = [item for item in items if shard.holds(item.id)]
    description = describe(settings)
    store = open_store(out)
    store.prepare()
    if ray is None:  # before it is known how many scans there are
        check_limit(jobs or 0, "MEDZSAD_MAX_WORKERS", f"`jobs` {jobs}", "processes")
    if store.url.startswith("memory:") and (ray is not None or jobs != 0):
        raise BadInput(f"{store.url} is of this process alone: use `jobs` 0, or another place.")
    _check_settings(store, description)
    job = Job(settings, digest_of(description), store.url, dict(headers or {}))
    parts = PartWriter(store, [item.id for item in items], shard)
    summary = Summary(store.url, len(share))

    missing: list[ScanItem] = []
    with progress_of(len(share), bar) as tell:

        def take(row: Row) -> None:
            parts.add(row)
            summary.add(row)
            tell(summary.failed)

        try:
            for item, row in _known(store, share, job.digest):
                if row is None or (retry_failed and row.status == FAILED):
                    missing.append(item)
                    if row is not None:
                        store.remove(f"{place_of(item.id)}/{OUTCOME}")
                else:
                    take(row)
            summary.before = len(share) - len(missing)
            with closing(_executed(missing, job, ray, jobs)) as rows:
                for row in rows:
                    take(row)
        finally:
            summary.seconds = time.monotonic() - began
            parts.flush()
    if shard.count == 1:
        summary.merged = merge(store)
    return summary


def _executed(items: list[ScanItem], job: Job, ray: str | None, jobs: int | None) -> Generator[Row]:
    if not items:
        return
    if ray is not None:
        from medzsad.batch.on_ray import on_ray

        yield from on_ray(items, job, ray, jobs or None)
    elif jobs == 0:
        yield from in_this_process(items, job)
    else:
        yield from in_processes(items, job, min(jobs or 1, len(items)))


def _known(store: ResultStore, items: list[ScanItem], digest: str) -> Iterator[tuple[ScanItem, Row | None]]:
    with ThreadPoolExecutor(READERS) as readers:
        for begin in range(0, len(items), 1024):
            chunk = items[begin : begin + 1024]
            yield from zip(chunk, readers.map(lambda item: settled(store, item, digest), chunk), strict=True)


def _check_settings(store: ResultStore, description: dict[str, Any]) -> None:
    """Return a place holds results of one kind of settings.

    A wrong option must not replace a million of them.
    """
    content = store.read(SETTINGS)
    if content is None:
        store.write(SETTINGS, (json.dumps(description, indent=2) + "\n").encode())
        return
    try:
        there = parse_json(content, f"{store.url}/{SETTINGS}")
        different = [key for key in description if description[key] != there.get(key)]
    except (BadInput, AttributeError) as error:
        raise BadInput(f"{store.url}/{SETTINGS} is damaged; choose another place for the results.") from error
    if different:
        listed = ", ".join(f"{key} {there.get(key)} there, {description[key]} now" for key in different[:3])
        raise BadInput(
            f"{store.url} holds results of other settings ({listed}); choose another place for these."
        )
