"""Scans one after another: while one is predicted, the next is read and the last one written.

Of small scans with a quick model, reading and writing take as long as the model. Each has one thread, so at
most three scans are in memory, and of large ones one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from medzsad.batch.manifest import ScanItem
from medzsad.batch.records import Row
from medzsad.batch.watch import Watch
from medzsad.batch.worker import Task, Worker
from medzsad.results.ranking import shortened

LARGE_BYTES = 256 << 20
"""Voxels of a scan beside which none is read or written: two such are never in memory at once."""

SLOW_S = 30.0
"""Beside longer predictions writing counts for nothing, and a row should not wait for the next of them."""


def overlapped(worker: Worker, items: Iterable[ScanItem], watch: Watch) -> Generator[Row]:
    """Do the scans in their order, and yield a row once its results are there.

    A scan at which an earlier run died is done alone: else the one beside it would be blamed, too. A run that
    is stopped waits for results that are being written, not for a scan that is being read.

    Args:
        worker: whose stages are used.
        items: the scans.
        watch: is told what this thread does or waits for.

    Raises:
        MedzsadError: if no scan can be done; see :class:`~medzsad.batch.worker.Worker`. What was written
            until then is yielded first.
    """
    queue = iter(items)
    task: Task | None = None
    ahead: _Ahead | None = None
    writing: Future[Row] | None = None
    with ThreadPoolExecutor(1, "writer") as writer:
        try:
            item = next(queue, None)
            while item is not None:
                if ahead is None:
                    task = worker.read(item)
                else:
                    watch.phase(f"reading {shortened(item.id)}")
                    task, ahead = ahead.task(), None
                item = next(queue, None)
                alone = _alone(task)
                if writing is not None and (alone or writing.done()):
                    row, writing, watch.behind = writing.result(), None, 0
                    yield row
                if item is not None and not alone:
                    ahead = _Ahead(worker, item)
                began = time.monotonic()
                worker.predict(task)
                quick = time.monotonic() - began < SLOW_S
                if writing is not None:
                    row, writing, watch.behind = writing.result(), None, 0
                    yield row
                begun, task = task, None
                if item is None or alone or not quick:
                    row = worker.write(begun)
                    del begun  # and its scan, before another is read
                    yield row
                else:
                    writing, watch.behind = writer.submit(worker.write, begun), 1
                    del begun
        except GeneratorExit:
            raise
        except BaseException:
            if writing is not None:
                row, writing = writing.result(), None
                yield row
            raise
        finally:
            watch.behind = 0
            if task is not None:
                task.held.close()
            if ahead is not None:
                ahead.give_up()
            if writing is not None:
                writing.exception()


class _Ahead:
    """A scan that is read by a thread which nobody has to wait for, not even the end of the program."""

    def __init__(self, worker: Worker, item: ScanItem) -> None:
        self._begun = worker.begin(item)
        self._read: Future[None] = Future()
        self._lock, self._given_up = threading.Lock(), False

        def read() -> None:
            try:
                worker.read(item, begun=self._begun, told=False)
            except BaseException as error:
                self._read.set_exception(error)
            else:
                self._read.set_result(None)
            with self._lock:
                if self._given_up:
                    self._begun.held.close()

        threading.Thread(target=read, name="reader", daemon=True).start()

    def task(self) -> Task:
        """Wait for the scan."""
        self._read.result()
        return self._begun

    def give_up(self) -> None:
        """Undo what was begun: now, and again once the thread is done."""
        with self._lock:
            self._given_up = True
            self._begun.held.close()


def _alone(task: Task) -> bool:
    """Whether no other scan should be under way beside this one."""
    if task.attempt > 1:
        return True
    return task.scan is not None and task.scan.voxels.nbytes > LARGE_BYTES
