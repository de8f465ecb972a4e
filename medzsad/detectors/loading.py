"""From a name or a checkpoint file to a detector ready to predict."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.detectors.registry import detector_class
from medzsad.detectors.zoo import find_entry
from medzsad.errors import ModelNotReady

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def load_detector(
    name: str | os.PathLike[str] = "medzsad-mini",
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    clip_weights: str | os.PathLike[str] | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> AnomalyDetector:
    """Builds a detector, ready to predict.

    Args:
        name: a name of the model zoo, or a medzsad checkpoint (``.safetensors``).
        device: ``"auto"`` (CUDA, then MPS, then CPU) or a torch device.
        precision: ``"auto"`` (bf16 where the device computes it natively, else fp32), ``"fp32"``, ``"bf16"``
            or ``"fp16"``.
        clip_weights: for CLIP-based detectors, the backbone's weights: an open_clip tag or a local file.
        adapter: a checkpoint used instead of the one that ``name`` stands for; of the same method.

    Raises:
        ModelNotReady: on an unknown name, device or precision, or a checkpoint that is missing or damaged.
    """
    torch_device = resolve_device(device)
    chosen = resolve_precision(precision, torch_device)
    text = os.fspath(name)
    if text.endswith(".safetensors"):
        entry, path = None, Path(text)
    elif Path(text).is_file():
        raise ModelNotReady(f"{text}: not a medzsad checkpoint; expected a .safetensors file")
    else:
        entry = find_entry(text)
        path = entry.path
    checkpoint = read_checkpoint(adapter if adapter is not None else path)
    if entry is not None and checkpoint.method != entry.method:
        raise ModelNotReady(
            f"{adapter or path}: holds a {checkpoint.method!r} detector, but {text} is {entry.method!r}"
        )
    weights = None if clip_weights is None else os.fspath(clip_weights)
    try:
        detector = detector_class(checkpoint.method).from_checkpoint(checkpoint, clip_weights=weights)
    except ModelNotReady as error:
        raise ModelNotReady(f"{adapter or path}: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # as torch and dicts do on misfits
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotReady(
            f"{adapter or path}: the checkpoint does not fit its method ({reason})"
        ) from error
    detector.name = text if entry is not None else path.stem
    detector.precision = chosen
    return detector.to(torch_device).eval().requires_grad_(False)


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device that ``device`` stands for.

    Raises:
        ModelNotReady: if there is no such device here.
    """
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


def resolve_precision(precision: str, device: torch.device) -> str:
    """``precision`` with ``"auto"`` decided for ``device``.

    Raises:
        ModelNotReady: on an unknown precision, or fp16 on the CPU.
    """
    if precision not in PRECISIONS:
        raise ModelNotReady(f"unknown precision {precision!r}; use one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise ModelNotReady("precision fp16 is not computed on the CPU; use 'bf16', 'fp32' or 'auto'")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and _cpu_computes_bf16() else "fp32"


def _cpu_computes_bf16() -> bool:
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
