"""Many scans from their list to their results: what is missing is done, what is there stays."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.batch.manifest import ScanItem, list_scans, read_manifest
from medzsad.batch.outcome import FolderOutcome, Outcome
from medzsad.batch.predictor import PredictSettings, describe, digest_of
from medzsad.batch.processes import in_processes, in_this_process
from medzsad.batch.records import FAILED, Row
from medzsad.batch.store import OUTCOME, READERS, SETTINGS, FlatStore, ResultStore, open_store, place_of
from medzsad.batch.table import PartWriter, merge, require_pyarrow
from medzsad.batch.watch import Notes
from medzsad.batch.worker import Job, settled
from medzsad.errors import BadInput, MedzsadError
from medzsad.limits import check_limit
from medzsad.storage.hashing import Shard
from medzsad.storage.text_files import parse_json

if TYPE_CHECKING:
    from medzsad.detectors.mutual.settings import MutualSettings

log = logging.getLogger(__name__)
Bar = Callable[[int], AbstractContextManager[Callable[[int], None]]]


def predict_many(
    inputs: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    fresh: bool = False,
    watch: Notes | None = None,
    headers: Mapping[str, str] | None = None,
    send_back: bool = False,
    mutual: MutualSettings | None = None,
    **settings: Any,
) -> FolderOutcome:
    """Predict scans one after another, here, and write the files of all to one folder.

    What an earlier run did of the same input with the same settings is not done again, nor what failed kept.

    Args:
        inputs: files, folders (see :func:`medzsad.scans.find.locate_scans`) and ``dicomweb://`` URLs.
        out: folder of the results; created where missing.
        fresh: do again what is done.
        watch: is told of each scan; by default its notes are logged.
        headers: HTTP headers that open a DICOMweb server.
        send_back: store the DICOM results of what a server had there.
        mutual: let the scans score each other, instead of a model (:mod:`medzsad.batch.mutual`).
        settings: see :class:`~medzsad.batch.predictor.PredictSettings`. Several scans also get tables
            (:mod:`medzsad.batch.summary`) and, with ``report``, an index.

    Raises:
        MedzsadError: where no input could be predicted for a reason that is not a scan's own: options, the
            model or the output folder.
    """
    chosen = PredictSettings(**settings)
    chosen.formats()
    watch = watch or Notes()
    items, notes = list_scans([os.fspath(path) for path in inputs], series=chosen.series)
    for note in notes:
        log.info("%s", note)
    if mutual is not None:
        from medzsad.batch.mutual import mutual_settings

        chosen = mutual_settings(items, chosen, mutual, out=str(out), headers=headers, watch=watch)
    store = FlatStore(Path(out))
    outcome = FolderOutcome(store, items)
    taken = tuple(item.id for item in items if not item.is_remote)
    digest = digest_of(describe(chosen))
    job = Job(chosen, digest, str(out), dict(headers or {}), flat=True, taken=taken)
    store.prepare()
    try:
        watch.begin(len(items))
        _do(
            store, items, job, outcome, lambda new: in_this_process(new, job, watch),
            lambda row: watch.advance(), fresh=fresh,
        )  # fmt: skip
        outcome.summarise(with_index=chosen.report)
        watch.close()
        if send_back:
            _send_back(outcome, items, job.headers)
    finally:
        watch.phase("")
        if not outcome.done:
            store.discard()
    return outcome


def run_cohort(
    inputs: Iterable[str],
    out: str | os.PathLike[str],
    settings: PredictSettings,
    *,
    jobs: int | None = None,
    ray: str | None = None,
    shard: Shard | None = None,
    retry_failed: bool = False,
    fresh: bool = False,
    headers: Mapping[str, str] | None = None,
    mutual: MutualSettings | None = None,
    bar: Bar | None = None,
) -> Outcome:
    """Predict a cohort of scans; a run that was stopped, or failed, is gone on with by running it again.

    >>> settings = PredictSettings(model="medzsad-mini", overlay="none")        # doctest: +SKIP
    >>> run_cohort(["scans.csv"], "s3://bucket/out", settings, ray="auto")      # doctest: +SKIP

    Args:
        inputs: see :func:`~medzsad.batch.manifest.read_manifest`.
        out: folder or fsspec URL of the results.
        settings: how scans are predicted.
        jobs: how many workers: processes here (0: none but this one; by default 1), or actors on Ray. A
            script that asks for processes needs the usual ``if __name__ == "__main__"``.
        ray: address of a Ray cluster, or ``"auto"``; None for workers here.
        shard: do only this share of the scans, and leave merging to :func:`~medzsad.batch.table.merge`.
        retry_failed: try scans again that failed, though their input is still the same.
        fresh: do again what is done.
        headers: HTTP headers that open a DICOMweb server.
        mutual: let the scans score each other, instead of a model. They are compared in this process, before
            the workers begin; with ``ray`` their features are computed on the cluster, and the rest is done
            here. It takes no ``shard``.
        bar: gets the number of scans, and gives what is called after each with the failures so far.

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
    if mutual is not None and shard is not None:
        raise BadInput("`mutual` compares all scans with each other; use `jobs` or `ray` instead of `shard`.")
    shard = shard or Shard()
    items = read_manifest(inputs, headers, series=settings.series)
    if mutual is not None:
        from medzsad.batch.mutual import mutual_settings

        settings = mutual_settings(items, settings, mutual, out=str(out), headers=headers, ray=ray, jobs=jobs)
        if ray is not None:
            ray, jobs = None, min(jobs or 1, os.cpu_count() or 1)
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
    outcome = Outcome(store.url, len(share))
    with (bar or _no_bar)(len(share)) as tell:

        def take(row: Row) -> None:
            parts.add(row)
            tell(outcome.failed)

        try:
            _do(
                store, share, job, outcome, lambda new: _executed(new, job, ray, jobs), take,
                retry_failed=retry_failed, fresh=fresh,
            )  # fmt: skip
        finally:
            parts.flush()
    if shard.count == 1:
        outcome.merged = merge(store)
    return outcome


def _do(
    store: ResultStore,
    items: list[ScanItem],
    job: Job,
    outcome: Outcome,
    executed: Callable[[list[ScanItem]], Generator[Row]],
    take: Callable[[Row], None] = lambda row: None,
    *,
    retry_failed: bool = False,
    fresh: bool = False,
) -> None:
    """Do what is not settled; every row is counted in the outcome, and taken."""
    began = time.monotonic()
    missing: list[ScanItem] = []

    def count(row: Row) -> None:
        outcome.add(row)
        take(row)

    try:
        for item, row in _known(store, items, job.digest):
            if row is not None and not fresh and not (retry_failed and row.status == FAILED):
                count(row)
                continue
            missing.append(item)
            if row is not None:
                store.remove(f"{place_of(item.id)}/{OUTCOME}")
        outcome.before = len(items) - len(missing)
        if missing:
            with closing(executed(missing)) as rows:
                for row in rows:
                    count(row)
    finally:
        outcome.seconds = time.monotonic() - began


def _no_bar(total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda failed: None)


def _executed(items: list[ScanItem], job: Job, ray: str | None, jobs: int | None) -> Generator[Row]:
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


def _send_back(outcome: FolderOutcome, items: list[ScanItem], headers: dict[str, str]) -> None:
    """Send the DICOM results of what a server had there; what it does not take is a failure."""
    from medzsad.results.dicom.writers import DICOM_FORMATS
    from medzsad.scans.dicom.web import parse_remote, store_files

    remote = {item.id: parse_remote(item.source) for item in items if item.is_remote}
    for row, result in zip(outcome.ordered(), outcome.results(), strict=True):
        place = remote.get(row.scan)
        if place is None:
            continue
        paths = [path for kind, path in result.files.items() if kind in DICOM_FORMATS]
        files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        try:
            count = store_files(place.server, files, headers)
            log.info("%s: %d DICOM objects stored on %s.", result.report["name"], count, place.server)
        except MedzsadError as error:
            outcome.fail(row.scan, str(error))


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
        keys = dict.fromkeys((*description, *there))
        different = [key for key in keys if (description.get(key) or None) != (there.get(key) or None)]
    except (BadInput, AttributeError) as error:
        raise BadInput(f"{store.url}/{SETTINGS} is damaged; choose another place for the results.") from error
    if different:
        listed = ", ".join(
            f"{key} {there.get(key)} there, {description.get(key)} now" for key in different[:3]
        )
        raise BadInput(
            f"{store.url} holds results of other settings ({listed}); choose another place for these."
        )
