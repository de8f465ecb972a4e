"""One scan of a cohort to one row of its table: what every kind of worker does."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from medzsad.batch.cache_key import fingerprint
from medzsad.batch.manifest import ScanItem
from medzsad.batch.predictor import Predictor, PredictSettings
from medzsad.batch.records import Circumstances, Row, done_row, failed_row, failure, is_sound
from medzsad.batch.store import OUTCOME, ResultStore, open_store, place_of
from medzsad.batch.table import as_table
from medzsad.errors import BadInput, ModelNotReady, OutputNotWritable, certain, explained
from medzsad.storage.text_files import parse_json
from medzsad.threads import limit_threads

# So many workers may die at a scan before it counts as failed.
ATTEMPTS = 3
THUMBNAIL = "thumbnail.png"


@dataclass(frozen=True)
class Job:
    """What all workers of a run have in common.

    Attributes:
        settings: how scans are predicted.
        digest: of what the results depend on.
        out: path or URL of the results.
        headers: secrets that open a DICOMweb server.
        threads: of each worker's computations; None leaves that to the libraries.
    """

    settings: PredictSettings
    digest: str
    out: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    threads: int | None = None

    @property
    def model(self) -> str:
        """The detector's name without its folder."""
        return Path(self.settings.model).name

    def about(self, seconds: float = 0.0, attempts: int = 1) -> Circumstances:
        """For rows."""
        return Circumstances(self.model, self.digest, round(seconds, 3), attempts)


def settled(store: ResultStore, item: ScanItem, digest: str, mark: str | None = None) -> Row | None:
    """Return the row of a scan that is done, or failed, with these settings and the input as it is now.

    ``mark`` is the input's :func:`~medzsad.batch.cache_key.fingerprint`, if known.
    """
    content = store.read(f"{place_of(item.id)}/{OUTCOME}")
    if content is None:
        return None
    try:
        stored = parse_json(content, OUTCOME)
        if (stored.pop("fingerprint"), stored["settings"]) != (mark or fingerprint(item), digest):
            return None
        row = Row(**stored)
        as_table([row])  # every value has its column's type
    except (BadInput, KeyError, TypeError, AttributeError):  # of another version, or damaged
        return None
    return row if row.scan == item.id and is_sound(row.scan, row.status, row.score, row.results) else None


class Worker:
    """Holds one detector and does one scan at a time.

    Attributes:
        job: what to do.
        store: where the results go.
    """

    def __init__(self, job: Job) -> None:
        if job.threads is not None:
            limit_threads(job.threads)
        self.job = job
        self.store = open_store(job.out)
        self._predictor = Predictor(job.settings)

    def __call__(self, item: ScanItem) -> Row:
        """Do a scan, unless it is settled. Its results are there, complete, before the row is returned.

        Raises:
            ModelNotReady: if the detector cannot be loaded.
            OutputNotWritable: if results cannot be written. Either way no other scan can be done.
        """
        mark = fingerprint(item)  # before it is read: what changes meanwhile is done again
        row = settled(self.store, item, self.job.digest, mark)
        if row is not None:
            return row
        began = time.perf_counter()
        with self._attempt(item) as attempt:
            if attempt > ATTEMPTS:
                reason = (
                    f"the worker process died {ATTEMPTS} times at this scan: not enough memory, or a crash "
                    "of a library that reads it"
                )
                row = failure(item, reason, "crash", self.job.about(attempts=ATTEMPTS))
                return self._commit_failure(item, row, mark)
            hidden: list[Path] = []
            try:
                return self._done(item, mark, began, attempt, hidden)
            except (ModelNotReady, OutputNotWritable):
                raise
            except Exception as error:
                about = self.job.about(time.perf_counter() - began, attempt)
                row = failed_row(item, explained(error, item.id), about, hidden=tuple(hidden))
                return self._commit_failure(item, row, mark)

    def _done(self, item: ScanItem, mark: str, began: float, attempt: int, hidden: list[Path]) -> Row:
        predictor = self._predictor
        with tempfile.TemporaryDirectory(prefix="medzsad-") as fetched:
            source = Path(item.source)
            if item.is_remote:
                hidden.append(Path(fetched).resolve())
                source = self._fetch(item, hidden[0])
                hidden.insert(0, source)
            scan = predictor.read(source, item.id, series=item.series, modality=item.modality)
            self._use_threads()
            prediction = predictor.predict(scan, plane=item.plane)
        with self.store.staging() as staging:
            files = predictor.save(prediction, staging)
            if predictor.settings.report:
                from medzsad.results.html.index import index_entry

                (staging / THUMBNAIL).write_bytes(index_entry(prediction, files["html"]).picture)
            row = done_row(item, prediction, self.job.about(time.perf_counter() - began, attempt))
            self.store.commit(item.id, staging, _outcome(row, mark))
        return row

    def _fetch(self, item: ScanItem, folder: Path) -> Path:
        from medzsad.scans.dicom.web import RemoteSeries, fetch_series, parse_remote

        remote = certain(parse_remote(item.source))
        series = item.series or remote.series or self.job.settings.series
        return fetch_series(RemoteSeries(remote.server, remote.study, series), folder, self.job.headers)

    def _use_threads(self) -> None:
        if self.job.threads is not None:
            import torch  # noqa: F401 - before it is told how many threads it has

            limit_threads(self.job.threads)

    @contextmanager
    def _attempt(self, item: ScanItem) -> Iterator[int]:
        """Which attempt at the scan this is, counted where it outlives the process.

        The file holds that number and the process's.
        """
        path = f"attempts/{item.id}"
        before = (self.store.read(path) or b"0").split()[:1]
        number = 1 + (int(before[0][:6]) if before and before[0].isdigit() else 0)
        if number <= ATTEMPTS:
            self.store.write(path, f"{number} {os.getpid()}\n".encode())
        try:
            yield number
        finally:  # what ends here has not died
            self.store.remove(path)

    def _commit_failure(self, item: ScanItem, row: Row, mark: str) -> Row:
        with self.store.staging() as staging:
            self.store.commit(item.id, staging, _outcome(row, mark))
        return row


def _outcome(row: Row, mark: str) -> bytes:
    fields = asdict(row) | {"fingerprint": mark}
    return (json.dumps(fields, indent=2) + "\n").encode()
