"""One scan to its results and its row of the table: what every kind of worker does."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.batch.manifest import ScanItem
from medzsad.batch.predictor import Predictor, PredictSettings, fingerprint
from medzsad.batch.records import (
    Row,
    done_row,
    failed_row,
    failure,
    is_sound,
    without_names,
)
from medzsad.batch.store import FLAT, OUTCOME, THUMBNAIL, FlatStore, ResultStore, open_store, place_of
from medzsad.batch.watch import Watch
from medzsad.errors import BadInput, ModelNotReady, OutputNotWritable, certain, explained
from medzsad.results.ranking import shortened
from medzsad.storage.atomic import PREFIX, sweep
from medzsad.storage.text_files import parse_json
from medzsad.threads import limit_threads

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction
    from medzsad.scans.scan import Scan

log = logging.getLogger(__name__)

# So many workers may die at a scan before it counts as failed.
ATTEMPTS = 3
FETCHED = f"{PREFIX}fetched-"  # temporary folders with series of a server


@dataclass(frozen=True)
class Job:
    """What all workers of a run have in common.

    Attributes:
        settings: how scans are predicted.
        digest: of what the results depend on.
        out: path or URL of the results.
        headers: secrets that open a DICOMweb server.
        threads: of each worker's computations; None leaves that to the libraries.
        flat: whether the results of all scans share one folder, whose user may be told the inputs' names.
        taken: of such a folder, names of results that are not free for what comes from a server.
    """

    settings: PredictSettings
    digest: str
    out: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    threads: int | None = None
    flat: bool = False
    taken: tuple[str, ...] = ()

    def about(self, seconds: float = 0.0, attempts: int = 1) -> dict[str, Any]:
        """Return what rows say besides the result."""
        return {
            "model": Path(self.settings.model).name,
            "settings": self.digest,
            "seconds": round(seconds, 3),
            "attempts": attempts,
        }


def settled(store: ResultStore, item: ScanItem, digest: str, mark: str | None = None) -> Row | None:
    """Return the row of a scan that is done, or failed, with these settings and the input as it is now.

    ``mark`` is the input's :func:`~medzsad.batch.predictor.fingerprint`, if known.
    """
    content = store.read(f"{place_of(item.id)}/{OUTCOME}")
    if content is None:
        return None
    try:
        stored = parse_json(content, OUTCOME)
        files = stored.pop("files", None)
        if (stored.pop("fingerprint"), stored["settings"]) != (mark or fingerprint(item), digest):
            return None
        row = Row.checked(stored)
    except (BadInput, KeyError, TypeError, ValueError, AttributeError):  # of another version, or damaged
        return None
    if row.scan != item.id or not is_sound(row.scan, row.status, row.score, row.results):
        return None
    return row if not isinstance(store, FlatStore) or store.holds(files) else None


@dataclass
class Task:
    """A scan on its way through the three stages of a :class:`Worker`.

    Attributes:
        item: the scan.
        mark: its :func:`~medzsad.batch.predictor.fingerprint`.
        attempt: which one this is, from 1 on.
        name: what its results are called.
        hidden: temporary paths, which no reason of a failure may name.
        scan: as it was read.
        prediction: of it.
        error: of a stage, for the last one to tell of.
        row: what became of it, once that is known.
        held: what ends with it: the marker of its attempt, the temporary files of a scan of a server.
    """

    item: ScanItem
    mark: str
    attempt: int = 0
    name: str = ""
    hidden: list[Path] = field(default_factory=list)
    scan: Scan | None = None
    prediction: ScanPrediction | None = None
    error: Exception | None = None
    row: Row | None = None
    held: ExitStack = field(default_factory=ExitStack)
    _seconds: float = 0.0
    _began: float | None = None

    def begin(self) -> None:
        """Note that a stage begins."""
        self._began = time.perf_counter()

    def end(self) -> None:
        """Note that it ends."""
        self._seconds, self._began = self.spent(), None

    def spent(self) -> float:
        """Return the seconds that were spent for the scan; what it waited for others counts not."""
        return self._seconds + (0.0 if self._began is None else time.perf_counter() - self._began)


class Worker:
    """Holds one detector and does one scan at a time.

    Attributes:
        job: what to do.
        store: where the results go.

    Args:
        job: what to do.
        watch: is told of it.
    """

    def __init__(self, job: Job, watch: Watch | None = None) -> None:
        if job.threads is not None:
            limit_threads(job.threads)
        self.job = job
        self.store = open_store(job.out, flat=job.flat)
        self._watch = watch or Watch()
        self._predictor = Predictor(job.settings)
        self._names = {name.casefold(): name for name in job.taken}  # of results, and the scans' ids
        # Of a cohort, no other scan could be written either; in one folder, another's file may be in the way.
        self._fatal = (ModelNotReady,) if job.flat else (ModelNotReady, OutputNotWritable)

    def __call__(self, item: ScanItem) -> Row:
        """Do a scan, unless it is settled. Its results are there, complete, before the row is returned.

        Raises:
            ModelNotReady: if the detector cannot be loaded.
            OutputNotWritable: if results cannot be written. Either way no other scan can be done.
        """
        task = self.read(item)
        with task.held:
            self.predict(task)
            return self.write(task)

    def begin(self, item: ScanItem) -> Task:
        """Return the task of a scan: settled already, or with the marker of an attempt that begins."""
        task = Task(item, fingerprint(item))  # before it is read: what changes meanwhile is done again
        task.row = settled(self.store, item, self.job.digest, task.mark)
        if task.row is None:
            task.attempt = task.held.enter_context(self._attempt(item))
        return task

    def read(self, item: ScanItem, *, begun: Task | None = None, told: bool = True) -> Task:
        """Read a scan: the first of three stages, which a thread of its own may do for the next scan.

        Args:
            item: the scan.
            begun: its task, if it was begun.
            told: whether the watch is told; it is for one thread.
        """
        task = self.begin(item) if begun is None else begun
        if task.row is not None:
            return task
        if task.attempt > ATTEMPTS:
            with task.held:
                task.row = self._gave_up(task)
            return task
        with self._stage(task):
            if item.fault:
                raise BadInput(item.fault)
            if told:
                self._watch.phase(f"reading {shortened(item.id)}")
            source, task.name = task.held.enter_context(self.at_hand(item, task.hidden, told=told))
            task.scan = self._predictor.read(source, task.name, series=item.series, modality=item.modality)
        return task

    def predict(self, task: Task) -> None:
        """Predict what was read: the second stage.

        Raises:
            ModelNotReady: if the detector cannot be loaded.
        """
        if task.scan is None:
            return
        with self._stage(task):
            predictor, watch, shown = self._predictor, self._watch, shortened(task.name)
            watch.phase(f"loading {self.job.settings.model}")
            predictor.load()
            self._use_threads()
            watch.note(task.name, task.scan.notes)
            watch.phase(f"predicting {shown}")
            task.prediction = predictor.predict(
                task.scan, plane=task.item.plane, progress=watch.slices(shown)
            )
            watch.note(task.name, task.prediction.scan.notes[len(task.scan.notes) :])
            watch.phase(f"writing {shown}")

    def write(self, task: Task) -> Row:
        """Write what was predicted, or that it failed: the last stage, which another thread may do.

        Raises:
            OutputNotWritable: if results cannot be written.
        """
        if task.row is None and task.prediction is not None and task.error is None:
            with self._stage(task):
                task.row = self._written(task, task.prediction)
        with task.held:
            if task.row is None:
                task.row = self._failed(task)
        return task.row

    @contextmanager
    def _stage(self, task: Task) -> Iterator[None]:
        """Keep a scan's error for its last stage, and count the time; what concerns all scans is raised."""
        task.begin()
        try:
            yield
        except self._fatal:
            task.held.close()
            raise
        except Exception as error:
            task.error = error
        except BaseException:  # the run is stopped
            task.held.close()
            raise
        finally:
            task.end()

    def _written(self, task: Task, prediction: ScanPrediction) -> Row:
        store, item = self.store, task.item
        with store.staging() as staging:
            files = self._predictor.save(
                prediction, store.folder if isinstance(store, FlatStore) else staging
            )
            if self.job.settings.report:
                from medzsad.results.html.index import index_entry

                (staging / THUMBNAIL).write_bytes(index_entry(prediction, files["html"]).picture)
            results = FLAT if self.job.flat else place_of(item.id)
            row = done_row(item, prediction, results, self.job.about(task.spent(), task.attempt))
            names = {kind: path.name for kind, path in files.items()} if self.job.flat else None
            store.commit(item.id, staging, _outcome(row, task.mark, names))
        return row

    def _failed(self, task: Task) -> Row:
        item, hidden = task.item, task.hidden
        error = explained(certain(task.error), item.source if self.job.flat else item.id)
        about = self.job.about(task.spent(), task.attempt)
        row = failed_row(item, error, about, lambda text: self._told(text, item, hidden))
        return self._commit_failure(item, row, task.mark)

    def _gave_up(self, task: Task) -> Row:
        reason = (
            f"the worker process died {ATTEMPTS} times at this scan: not enough memory, or a crash of a "
            "library that reads it"
        )
        row = failure(task.item, reason, "crash", self.job.about(attempts=ATTEMPTS))
        return self._commit_failure(task.item, row, task.mark)

    @contextmanager
    def at_hand(self, item: ScanItem, hidden: list[Path], *, told: bool = True) -> Iterator[tuple[Path, str]]:
        """Lend a scan's path on this machine, and what its results are called.

        What is fetched from a server goes again in the end; ``hidden`` gets its temporary paths. Unless
        ``told``, nobody hears of it.
        """
        if not item.is_remote:
            yield Path(item.source), item.id
            return
        from medzsad.scans.dicom.web import RemoteSeries, fetch_series, parse_remote

        remote = certain(parse_remote(item.source))
        series = item.series or remote.series or self.job.settings.series
        sweep(Path(tempfile.gettempdir()), f"{FETCHED}*")
        folder = Path(tempfile.mkdtemp(prefix=FETCHED)).resolve()
        hidden.append(folder)
        try:
            remote = RemoteSeries(remote.server, remote.study, series)
            if self.job.flat and told:
                log.info("fetching %s", remote)
            source = fetch_series(remote, folder, self.job.headers)
            hidden.insert(0, source)
            yield source, self._free_name(source.name, item) if self.job.flat else item.id
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _free_name(self, name: str, item: ScanItem) -> str:
        """Return the name, or one with a number if another scan of this run has it."""
        number, free = 1, name
        while self._names.setdefault(free.casefold(), item.id) != item.id:
            number += 1
            free = f"{name}_{number}"
        return free

    def _told(self, text: str, item: ScanItem, hidden: list[Path]) -> str:
        """Return the reason of a failure as it may be told."""
        if not self.job.flat:
            return without_names(text, item, hidden)
        from medzsad.scans.dicom.web import parse_remote

        for folder in hidden:
            text = text.replace(str(folder), str(parse_remote(item.source)))
        return text

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
        if not self.job.flat:  # where the scan is tried again in every run
            with self.store.staging() as staging:
                self.store.commit(item.id, staging, _outcome(row, mark))
        return row


def _outcome(row: Row, mark: str, files: dict[str, str] | None = None) -> bytes:
    fields = asdict(row) | {"fingerprint": mark} | ({"files": files} if files is not None else {})
    return (json.dumps(fields, indent=2) + "\n").encode()
