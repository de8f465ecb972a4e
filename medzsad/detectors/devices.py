"""What detectors compute on: devices and precisions by their names."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch

from medzsad.errors import ModelNotReady

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device that ``device`` stands for.

    Raises:
        ModelNotReady: if there is no such device here.
    """
    if str(device).partition(":")[0] == "meta":
        raise ModelNotReady("device 'meta' computes nothing; use 'cpu' or 'auto'")
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelNotReady(f"device {device!r} cannot be used here; use 'cpu' or 'auto'") from error
    return resolved


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """``precision`` with ``"auto"`` decided for ``device``.

    Raises:
        ModelNotReady: on an unknown precision, fp16 on the CPU, or tf32 on anything but a GPU that has it.
    """
    if precision not in PRECISIONS:
        raise ModelNotReady(f"unknown precision {precision!r}; use one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise ModelNotReady("precision fp16 is not computed on the CPU; use 'bf16', 'fp32' or 'auto'")
    if precision == "tf32" and not (
        device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    ):
        raise ModelNotReady(
            f"precision tf32 needs an NVIDIA GPU of compute capability 8.0 or more, not {device}; use 'fp32'"
        )
    if precision != "auto":
        return cast(Precision, precision)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and cpu_computes_bf16() else "fp32"


@contextlib.contextmanager
def float32_products(precision: str, device: torch.device) -> Iterator[None]:
    """Decide what a GPU does with float32 matrices and convolutions within the block.

    PyTorch leaves convolutions to TF32 (10 bits of mantissa instead of 23) unless it is told not to, and
    matrices to float32. Here ``"fp32"`` is float32 and ``"tf32"`` is TF32 for both. Other precisions, and
    other devices, are left as they are.

    Args:
        precision: a resolved one of :data:`PRECISIONS`.
        device: that computes.
    """
    if device.type != "cuda" or precision not in ("fp32", "tf32"):
        yield
        return
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    wanted: str | bool
    if hasattr(matmul, "fp32_precision"):  # since PyTorch 2.9
        switches = ((matmul, "fp32_precision"), (cudnn.conv, "fp32_precision"))
        wanted = "tf32" if precision == "tf32" else "ieee"
    else:
        switches, wanted = ((matmul, "allow_tf32"), (cudnn, "allow_tf32")), precision == "tf32"
    former = [getattr(owner, name) for owner, name in switches]
    try:
        for owner, name in switches:
            setattr(owner, name, wanted)
        yield
    finally:
        for (owner, name), value in zip(switches, former, strict=True):
            setattr(owner, name, value)


def cpu_computes_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices natively; emulated bf16 is slower than fp32."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    capability = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if capability:
        return bool(capability.get("avx512_bf16") or capability.get("amx_bf16"))
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
