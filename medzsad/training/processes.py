"""What a training does to its process and with others: ranks, signals, deterministic algorithms.

Several processes train together as ``torchrun`` starts them; one is the special case. Gradients are
averaged by one all-reduce of what trains, a few million numbers at most, instead of by
``DistributedDataParallel``: that would wait for parameters which some settings never use (AdaCLIP's first
static text prompt), and must be told of each step that takes several backward passes. These are torch's own
collectives: ``ignite.distributed`` does not take the backend ``cpu:gloo,cuda:nccl``, with which gradients
go over NCCL and Python objects over gloo.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medzsad.errors import BadInput

# Others wait while the first process cuts volumes or downloads nothing but reads slowly.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Processes:
    """One of the processes that train together: this one.

    Attributes:
        rank: 0 is the one that writes files and lines.
        world_size: how many there are.
        local_rank: on this machine; its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Return once all have called it."""
        if self.world_size > 1:
            dist.barrier()

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process run the block before the others do; if it fails there, they fail too."""
        if self.is_first:
            failed = True
            try:
                yield
                failed = False
            finally:
                self.gather(failed)
        else:
            if any(self.gather(False)):
                raise BadInput("the first process could not prepare the run; its message says why")
            yield

    def gather(self, mine: Any) -> list[Any]:
        """Return the object of every process, in order of rank."""
        if self.world_size == 1:
            return [mine]
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, mine)
        return parts

    def mean(self, values: Mapping[str, float], device: torch.device) -> dict[str, float]:
        """Means over the processes, by name."""
        if self.world_size == 1:
            return dict(values)
        row = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
        dist.all_reduce(row)
        return dict(zip(values, (row / self.world_size).tolist(), strict=True))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes; what has none in any process keeps none."""
        if self.world_size == 1:
            return
        parameters = list(parameters)
        has = [float(p.grad is not None) for p in parameters]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flags = torch.tensor(has, device=parameters[0].device)
        flat = torch.cat([flags, *(part.reshape(-1).float() for part in parts)])
        dist.all_reduce(flat)
        has, start = flat[: len(parameters)].tolist(), len(parameters)
        for parameter, known in zip(parameters, has, strict=True):
            end = start + parameter.numel()
            if known:
                mean: Tensor = flat[start:end].view_as(parameter) / self.world_size
                parameter.grad = mean.to(parameter.dtype)
            start = end


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Return this process among those that ``torchrun`` started, told by its environment variables.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``: gloo on the CPU, NCCL on GPUs.

    Raises:
        BadInput: if there are more processes than GPUs.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Processes()
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    on_gpus = device != "cpu" and torch.cuda.is_available()
    if on_gpus and local >= torch.cuda.device_count():
        raise BadInput(
            f"process {local} has no GPU of its own ({torch.cuda.device_count()} are here); start as many "
            "processes as there are GPUs (torchrun --nproc-per-node)"
        )
    if on_gpus:
        torch.cuda.set_device(local)
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=PATIENCE)
    try:
        yield Processes(rank, world_size, local)
    finally:
        dist.destroy_process_group()


def device_of(device: str, processes: Processes) -> str:
    """Return the device of this process."""
    if processes.world_size > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{processes.local_rank}"
    return "cpu" if processes.world_size > 1 and device == "auto" else device


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask to stop after the step; a second one interrupts at once.

    Yields:
        Whether it was asked to stop. Outside the main thread, which alone gets signals, it never was.
    """
    asked = threading.Event()

    def ask(*_: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def quiet_worker(_: int) -> None:
    """For processes that read images, which Ctrl-C reaches too: they go on until the step is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how the loader ends them


@contextlib.contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Deterministic algorithms within the block; operations that have none warn (not on the CPU)."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    former = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(former, warn_only=warned)
