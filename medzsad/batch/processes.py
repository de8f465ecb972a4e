"""The workers of a run on this machine: none but this process, or processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from medzsad.batch.manifest import ScanItem
from medzsad.batch.overlap import overlapped
from medzsad.batch.records import Row, failure
from medzsad.batch.watch import Watch
from medzsad.batch.worker import ATTEMPTS, Job, Worker
from medzsad.errors import certain
from medzsad.heap import keep_freed_memory
from medzsad.threads import share_of_threads

STOP_S = 10.0  # that a worker has to stop by itself
_worker: Worker | None = None  # of a process of the pool


def in_this_process(items: Iterable[ScanItem], job: Job, watch: Watch | None = None) -> Generator[Row]:
    """Do the scans one after another, here; reading and writing go on beside (:mod:`.overlap`)."""
    watch = watch or Watch()
    yield from overlapped(Worker(job, watch), items, watch)


def in_processes(items: Iterable[ScanItem], job: Job, jobs: int) -> Generator[Row]:
    """Do the scans in ``jobs`` processes, and yield their rows as they come.

    Each process holds one detector and gets a scan when it is free, so that memory does not grow with the
    number of scans. A process that dies (memory, a crash of a library) is replaced, and the scan that it
    died at is tried again: see :data:`~medzsad.batch.worker.ATTEMPTS`.

    Raises:
        MedzsadError: if no scan can be done; see :class:`~medzsad.batch.worker.Worker`.
    """
    if job.threads is None:
        job = replace(job, threads=share_of_threads(jobs))
    seats = [_Seat(job) for _ in range(jobs)]
    queue = iter(items)
    with ThreadPoolExecutor(jobs) as threads:
        running: dict[Future[Row], _Seat] = {}
        try:
            for seat, item in zip(seats, islice(queue, jobs), strict=False):
                running[threads.submit(seat.do, item)] = seat
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    seat = running.pop(future)
                    row = future.result()
                    for item in islice(queue, 1):
                        running[threads.submit(seat.do, item)] = seat
                    yield row
        finally:
            for seat in seats:
                seat.close()


class _Seat:
    """A process and its successors. One in each pool: the death of a process spoils its whole pool."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pool: ProcessPoolExecutor | None = None
        self._closed = False

    def do(self, item: ScanItem) -> Row:
        for _ in range(ATTEMPTS + 2):  # the worker itself counts, unless it dies before it can
            if self._closed:
                raise CancelledError
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(self._job,)
                )
            try:
                return self._pool.submit(_do, item).result()
            except BrokenProcessPool:
                self._pool.shutdown(wait=False)
                self._pool = None
        reason = "the worker process died again and again before or at this scan"
        return failure(item, reason, "crash", self._job.about(attempts=ATTEMPTS + 2))

    def close(self) -> None:
        """End the process, also in the middle of a scan: an interrupted run should not wait for it."""
        self._closed = True
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                with suppress(Exception):
                    process.terminate()
            self._pool.shutdown(wait=False, cancel_futures=True)


def _begin(job: Job) -> None:
    global _worker
    # What is told to stop takes back its marker of an attempt, which is for workers that are killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    _worker = Worker(job)


def _end_with_parent() -> None:
    """Where the run is killed, its workers would otherwise wait for scans for ever."""
    certain(multiprocessing.parent_process()).join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    os._exit(1)


def _do(item: ScanItem) -> Row:
    return certain(_worker)(item)
