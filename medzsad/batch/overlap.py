"""Scans one after another: while one is predicted, the next is read and the last one written.

Of small scans with a quick model, reading and writing take as long as the model. Each has one thread, so at
most three scans are in memory, and of large ones a single one.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from medzsad.batch.manifest import ScanItem
from medzsad.batch.records import Row
from medzsad.batch.worker import Task, Watch, Worker
from medzsad.errors import certain
from medzsad.results.ranking import shortened

LARGE_BYTES = 256 << 20
"""Voxels of a scan beside which no other is held."""

SLOW_S = 30.0
"""Beside longer predictions writing counts for nothing, and a row should not wait for the next of them."""


def overlapped(worker: Worker, items: Iterable[ScanItem], watch: Watch) -> Generator[Row]:
    """Do the scans in their order, and yield a row once its results are there.

    A scan at which an earlier run died is done alone: else the one beside it would be blamed, too.

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
    reading: Future[Task] | None = None
    writing: Future[Row] | None = None
    with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:
        try:
            item = next(queue, None)
            while item is not None:
                if reading is None:
                    task = worker.read(item)
                else:
                    watch.phase(f"reading {shortened(item.id)}")
                    task, reading = reading.result(), None
                item = next(queue, None)
                alone = _alone(task)
                if alone and writing is not None:
                    row, writing = writing.result(), None
                    yield row
                if item is not None and not alone:
                    reading = reader.submit(worker.read, item, told=False)
                began = time.monotonic()
                worker.predict(task)
                quick = time.monotonic() - began < SLOW_S
                if writing is not None:
                    row, writing = writing.result(), None
                    yield row
                begun, task = task, None
                if item is None or alone or not quick:
                    row = worker.write(begun)
                    del begun  # and its scan, before another is read
                    yield row
                else:
                    writing = writer.submit(worker.write, begun)
                    del begun
        except GeneratorExit:
            raise
        except BaseException:
            if writing is not None:
                row, writing = writing.result(), None
                yield row
            raise
        finally:
            if task is not None:
                task.held.close()
            if reading is not None:
                with suppress(Exception):
                    reading.result().held.close()
            if writing is not None:
                writing.exception()


def _alone(task: Task) -> bool:
    """Whether no other scan should be under way beside this one."""
    if task.attempt > 1:
        return True
    return task.scan is not None and certain(task.scan).voxels.nbytes > LARGE_BYTES
