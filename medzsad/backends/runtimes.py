"""What runs a graph on the CPU: OpenVINO or ONNX Runtime, each imported when one of its graphs is opened."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from medzsad.detectors import devices
from medzsad.errors import ModelNotReady

INPUT, TEXTS = "images", "text_features"
"""What a graph calls its inputs."""
BACKENDS = ("torch", "openvino", "onnx", "auto")
EXTRAS = {"openvino": "openvino", "onnx": "onnx"}
"""The extra of medzsad that brings what a backend needs."""
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}
"""The package that runs a backend's graphs."""
_MAKERS = ("onnx", "onnxscript")  # what makes the graphs of either


class Runtime(Protocol):
    """An opened graph; may be called by several threads at once."""

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Map (B, h, w), score (B,) and probability (B,) of images (B, 3, S, S), B of 1 or more; float32.

        Of a detector that marks the brain, also its map (B, h, w).

        A second input is texts (2, D), of a graph that was made with them.
        """


def resolve_backend(backend: str, device: str | torch.device, precision: str) -> tuple[torch.device, str]:
    """Return the device, and the precision of a graph where ``backend`` runs one; nothing is imported for it.

    Raises:
        ModelNotReady: if the backend cannot be used, or not like that.
    """
    if backend not in BACKENDS:
        raise ModelNotReady(f"unknown backend {backend!r}; use one of {', '.join(BACKENDS)}")
    if backend in ("torch", "auto"):
        return devices.resolve_device(device), "fp32"
    require_backend(backend)
    torch_device = torch.device("cpu")
    if str(device).partition(":")[0] not in ("auto", "cpu"):
        raise ModelNotReady(
            f"backend {backend!r} computes on the CPU, not on {str(device)!r}; use `device` cpu or "
            "`backend` torch"
        )
    devices.resolve_precision(precision, torch_device)
    if precision == "bf16" and backend == "onnx":
        raise ModelNotReady("backend 'onnx' computes in fp32; use `backend` openvino or torch for bf16")
    if precision == "bf16" and not devices.cpu_computes_bf16():
        raise ModelNotReady(f"this CPU does not compute bf16, which backend {backend!r} needs; use fp32")
    return torch_device, "fp32" if precision == "auto" else precision


def require_backend(backend: str) -> None:
    """Raise ModelNotReady unless the packages are there that ``backend`` needs; imports none of them."""
    names = (*_MAKERS, PACKAGES[backend])
    require_packages(names, what=f"backend {backend!r}", extra=EXTRAS[backend])


def require_packages(names: Sequence[str], *, what: str, extra: str) -> None:
    """Refuse to go on without some packages.

    Args:
        names: as they are imported.
        what: needs them, as the user knows it: ``"export onnx"``.
        extra: of medzsad, that brings them.

    Raises:
        ModelNotReady: naming those that are missing.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ModelNotReady(
            f'{what} needs {_joined(names)}: pip install "medzsad[{extra}]" (missing: {", ".join(missing)})'
        )


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


def version_of(backend: str) -> str:
    """Return the version of the package that runs a backend's graphs, or ``"absent"``; imports nothing."""
    try:
        return metadata.version(PACKAGES[backend])
    except metadata.PackageNotFoundError:
        return "absent"


def open_graph(path: Path, backend: str, precision: str = "fp32") -> Runtime:
    """Read an ONNX file and prepare it for the CPU, on as many threads as PyTorch uses.

    Args:
        path: the file.
        backend: ``"openvino"`` or ``"onnx"``.
        precision: what matrices are multiplied in: ``"fp32"``, and with OpenVINO also ``"bf16"``.

    Raises:
        Exception: whatever the library raises at a file that it cannot use.
    """
    return open_onnx(path) if backend == "onnx" else open_openvino(path, precision)


def open_onnx(path: Path) -> Runtime:
    """Return the graph in ONNX Runtime, in float32 and without its warnings."""
    # Else it reports its use to its makers, and leaves files of that in the cache and the temporary folder.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(session.run(None, dict(zip((INPUT, TEXTS), inputs, strict=False))))

    return run


def open_openvino(path: Path, precision: str = "fp32") -> Runtime:
    """Return the graph in OpenVINO."""
    with _no_reports_of_openvino():
        import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned threads of several processes would share the first cores.
        "ENABLE_CPU_PINNING": False,
    }
    with _signal_stack_kept():
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return _PerThread(lambda: _request(compiled))


@contextmanager
def _no_reports_of_openvino() -> Iterator[None]:
    """Let OpenVINO be imported without what reports each import to its makers, which it can do without."""
    name = "openvino_telemetry"
    blocked = name not in sys.modules
    if blocked:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if blocked:
            del sys.modules[name]


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Put back the thread's alternate signal stack.

    On CPUs with AMX, OpenVINO sets one of its own and frees it with the model, but leaves it set: the next
    Ctrl-C or SIGTERM would end the process with a segmentation fault.
    """
    sigaltstack = getattr(ctypes.CDLL(None), "sigaltstack", None) if sys.platform == "linux" else None
    former = _SignalStack()
    known = sigaltstack is not None and sigaltstack(None, ctypes.byref(former)) == 0
    try:
        yield
    finally:
        if known and sigaltstack is not None:
            sigaltstack(ctypes.byref(former), None)


class _PerThread:
    """One function for each thread, because a request of OpenVINO serves one at a time."""

    def __init__(self, make: Callable[[], Runtime]) -> None:
        self._make, self._own = make, threading.local()

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        if not hasattr(self._own, "run"):
            self._own.run = self._make()
        return self._own.run(*inputs)


def _request(compiled: Any) -> Runtime:
    request = compiled.create_infer_request()

    def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        # Copies: the next call changes nothing of them.
        found = request.infer(dict(zip((INPUT, TEXTS), inputs, strict=False)))
        return tuple(found[output] for output in compiled.outputs)

    return run
