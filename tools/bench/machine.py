"""What the machine is and can do: facts for the head of a table, and its own rate of multiplying matrices."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import time
from pathlib import Path

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LIBRARIES = ("torch", "openvino", "onnxruntime")


def describe(device: str = "cpu") -> str:
    """One line: the processor, its matrix instructions, threads, versions and the load."""
    flags = _cpuinfo("flags").split()
    known = [name for name in ("avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if name in flags]
    versions = [f"{name} {version}" for name in LIBRARIES if (version := _version(name))]
    processor = f"{_cpuinfo('model name') or platform.processor()} (family {_cpuinfo('cpu family')}, "
    processor += f"model {_cpuinfo('model')}; {', '.join(known) or 'no AVX-512'})"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    parts = [
        torch.cuda.get_device_name(device) if device.startswith("cuda") else processor,
        f"{len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads",
        *versions,
        f"Python {platform.python_version()}",
        f"load average {os.getloadavg()[0]:.1f} at the start",
        *([f"ONEDNN_MAX_CPU_ISA={limit}"] if limit else []),
    ]
    return "; ".join(parts)


def matmul_rate(precision: str, device: str = "cpu", *, repeats: int = 5) -> dict[str, float]:
    """FLOP/s that PyTorch reaches in products of matrices, the best of several, by shape.

    ``square`` is 4096 x 4096 x 4096; the others are the products of a ViT-L/14 block at 518 px.
    """
    shapes = {
        "square": (4096, 4096, 4096),
        "qkv": (1370, 1024, 3072),
        "out": (1370, 1024, 1024),
        "mlp up": (1370, 1024, 4096),
        "mlp down": (1370, 4096, 1024),
    }
    from medzsad.detectors import products

    rates = {}
    for name, (rows, inner, columns) in shapes.items():
        left = torch.randn(rows, inner, device=device).to(DTYPES[precision])
        right = torch.randn(columns, inner, device=device).to(DTYPES[precision])
        with torch.inference_mode():
            seconds = best(lambda left=left, right=right: products.linear(left, right, None), repeats, device)
        rates[name] = 2.0 * rows * inner * columns / seconds
    return rates


def best(call: object, repeats: int, device: str = "cpu") -> float:
    """Return the shortest of ``repeats`` calls in seconds, after one that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])


def peak_memory(device: str = "cpu") -> float:
    """Most bytes that this process held so far, on the device that computes."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated())
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _cpuinfo(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == name), "")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
