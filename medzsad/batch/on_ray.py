"""The workers of a cohort on a Ray cluster: Ray Data's actors, each with one detector."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medzsad.batch.manifest import ScanItem
from medzsad.batch.records import Row
from medzsad.batch.store import SETTINGS, ResultStore
from medzsad.batch.worker import Job, Worker
from medzsad.errors import BadInput, MedzsadError, ModelNotReady, OutputNotWritable
from medzsad.heap import keep_freed_memory

AUTO = "auto"
CPUS = 4  # of a worker without GPU; more do not speed one scan up by much
ROUNDS = 3
CONNECT_S = 20.0
NO_CLUSTER = "`ray` {}: there is no Ray cluster; check host, port and network."
BLOCKS, LARGEST_BLOCK = 10_000, 64
FATAL = {kind.__name__: kind for kind in (ModelNotReady, OutputNotWritable, BadInput)}
LOCAL_STORE_BYTES = 128 * 2**20  # rows of text are all that goes through it


def on_ray(items: list[ScanItem], job: Job, address: str, jobs: int | None) -> Iterator[Row]:
    """Do the scans on a Ray cluster, and yield their rows as they come.

    Ray restarts an actor that dies, and gives its scan to one that lives. What it cannot help is asked for
    again, :data:`ROUNDS` times. What Ray prints on the way is dropped, as standard output is the caller's;
    its log files have it.

    Args:
        items: scans.
        job: see :class:`~medzsad.batch.worker.Job`.
        address: of the cluster, ``host:port``; :data:`AUTO` joins one that runs on this machine, or starts
            one for the time of this run.
        jobs: how many actors; by default as many as the cluster has GPUs, or fours of CPUs.

    Raises:
        BadInput: if Ray is not installed, or there is no such cluster.
        MedzsadError: if no scan can be done; see :class:`~medzsad.batch.worker.Worker`.
    """
    rows = {item.id: {"item": json.dumps(asdict(item))} for item in items}
    for answer in answers_on_ray(rows, RayWorker, (), job, address, jobs):
        yield Row(**answer)


def answers_on_ray(
    rows: dict[str, dict[str, str]],
    worker: type,
    arguments: tuple[Any, ...],
    job: Job,
    address: str,
    jobs: int | None,
) -> Iterator[dict[str, Any]]:
    """Give rows to workers on a Ray cluster, and yield their answers as they come; see :func:`on_ray`.

    Args:
        rows: what a worker is called with, by the ``scan`` of its answer.
        worker: is made of ``job`` and ``arguments``; answers a row with ``{"row": JSON of an object}``, which
            has the row's ``scan``, or ``fatal`` and ``message``: the kind of error that ends the run.
        arguments: see ``worker``.
        job, address, jobs: see :func:`on_ray`.
    """
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        ray = _ray()
        ours = _connect(ray, address)
        try:
            yield from _in_rounds(ray, rows, worker, arguments, job, jobs)
        finally:
            if ours:
                ray.shutdown()


def _in_rounds(
    ray: Any,
    rows: dict[str, dict[str, str]],
    worker: type,
    arguments: tuple[Any, ...],
    job: Job,
    jobs: int | None,
) -> Iterator[dict[str, Any]]:
    waiting, reason = dict(rows), ""
    for _ in range(ROUNDS):
        try:
            for answer in _answers(ray, list(waiting.values()), worker, arguments, job, jobs):
                if waiting.pop(answer["scan"], None) is not None:
                    yield answer
        except ray.exceptions.RayError as error:
            reason = f" ({_first_line(error)})"
        if not waiting:
            return
    raise MedzsadError(
        f"Ray gave up with {len(waiting)} scans to do{reason}; run the same command again to go on with them."
    )


def check_address(address: str) -> None:
    """Refuses what is no address, above all an input that stands where ``--ray`` takes it for one.

    Raises:
        BadInput: on such an address.
    """
    if address != AUTO and (":" not in address or Path(address).exists() or address.startswith("ray://")):
        raise BadInput(
            f"`ray` {address}: no address of a Ray cluster (host:port); for one on this machine put `ray` "
            "last, or write `ray`=auto"
        )


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of the driver; what went wrong is raised
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BadInput('`ray` needs Ray; pip install "medzsad[ray]".') from error
    return ray


def _connect(ray: Any, address: str) -> bool:
    """Join or start a cluster; return whether it is to be left again."""
    if ray.is_initialized():
        return False
    if address != AUTO:
        _check_listens(address)
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    with _silent_stderr():
        try:
            ray.init(address=address, **quiet)
        except ConnectionError as error:
            if address != AUTO:
                raise BadInput(NO_CLUSTER.format(address)) from error
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=LOCAL_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
    return True


def _check_listens(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise BadInput(NO_CLUSTER.format(address)) from error


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what is not Python and write past it: Ray says at every start that it was told to be quiet."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _answers(
    ray: Any,
    rows: list[dict[str, str]],
    worker: type,
    arguments: tuple[Any, ...],
    job: Job,
    jobs: int | None,
) -> Iterator[dict[str, Any]]:
    context = ray.data.DataContext.get_current()
    quiet = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        # A scan may take long, and so may a cluster that grows.
        "execution_no_progress_timeout_s": -1,
        "max_consecutive_actor_init_deaths": 10,
    }
    for name, value in quiet.items():
        if hasattr(context, name):  # not every version has all
            setattr(context, name, value)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    actors, resources = _share(ray.cluster_resources(), job, jobs, len(rows))
    block = min(LARGEST_BLOCK, max(math.ceil(len(rows) / BLOCKS), 1))
    job = replace(job, threads=job.threads or max(1, int(resources["num_cpus"])))
    data = ray.data.from_items(rows, override_num_blocks=math.ceil(len(rows) / block)).map(
        worker,
        fn_constructor_args=(job, *arguments),
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
        **resources,
    )
    for answer in data.iter_rows():
        content = json.loads(answer["row"])
        if "fatal" in content:
            raise FATAL.get(content["fatal"], MedzsadError)(content["message"])
        yield content


def _share(cluster: dict[str, float], job: Job, jobs: int | None, scans: int) -> tuple[int, dict[str, float]]:
    """How many actors, and what each gets of the cluster."""
    cpus, gpus = int(cluster.get("CPU", 1)), int(cluster.get("GPU", 0))
    if gpus and job.settings.device != "cpu":
        actors = jobs or gpus
        # Several on one GPU: while one computes, another reads.
        per_gpu = math.ceil(actors / gpus)
        return max(1, min(actors, scans)), {"num_gpus": 1 / per_gpu, "num_cpus": 1}
    nodes = int(sum(n for name, n in cluster.items() if name.startswith("node:") and "__" not in name)) or 1
    actors = jobs or max(nodes, cpus // CPUS)
    return max(1, min(actors, scans)), {"num_cpus": max(1, min(CPUS, cpus // max(actors, nodes)))}


class RayWorker:
    """A :class:`~medzsad.batch.worker.Worker` whose input and output are rows of Ray Data."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._worker: Worker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        try:
            content = asdict(self._begun()(ScanItem(**json.loads(row["item"]))))
        except MedzsadError as error:  # in Ray's own wrapping it would be hard to recognise
            content = {"fatal": type(error).__name__, "message": str(error)}
        return {"row": json.dumps(content)}

    def _begun(self) -> Worker:
        if self._worker is None:
            keep_freed_memory()
            worker = Worker(self._job)
            check_shared(worker.store, SETTINGS)
            self._worker = worker
        return self._worker


def check_shared(store: ResultStore, path: str) -> None:
    """Refuse a place that is of this machine alone, though it has the same name on the others.

    Args:
        store: as a worker opened it.
        path: of a file that was written before the workers began.
    """
    if store.read(path) is None:
        raise OutputNotWritable(
            f"{store.url} is not the same place on all machines of the cluster; give a folder that they "
            "share, or a URL"
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
