"""The state that a stopped training goes on from: tensors in safetensors, the rest as JSON inside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medzsad.detectors.clip.detector import check_fingerprint
from medzsad.errors import BadInput, OutputNotWritable
from medzsad.storage.atomic import replacing
from medzsad.training.building import trainable
from medzsad.training.objectives import Trained

FORMAT = "medzsad-training-2"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        step: optimiser steps done.
        best: the highest figure that validation found so far; None before.
        best_step: at which.
        validations: everything that was measured, oldest first, JSON-serialisable.
        seconds: spent training, over all continuations.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    validations: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def save_state(
    path: Path,
    progress: Progress,
    detector: Trained,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    digest: str,
    processes: int = 1,
) -> None:
    """Write the state: it appears complete, or the former one stays.

    The frozen backbone is not part of it, only what trains, the optimiser's moments of that, and the state of
    torch's generator.

    Args:
        path: the file.
        progress, detector, optimiser, scaler: what is stored.
        digest: of the recipe.
        processes: that train together: what several add up is not bit for bit what one does.

    Raises:
        OutputNotWritable: if the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {"rng": torch.get_rng_state()}
    for name, parameter in trainable(detector).items():
        tensors[f"parameter.{name}"] = parameter
        for moment in _MOMENTS:
            if moment in optimiser.state.get(parameter, {}):
                tensors[f"{moment}.{name}"] = torch.as_tensor(optimiser.state[parameter][moment])
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    header = {
        "format": FORMAT,
        "recipe": digest,
        "processes": processes,
        "clip": detector.clip.fingerprint(),
        "progress": asdict(progress),
        "scaler": scaler.state_dict(),
    }
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"medzsad": json.dumps(header, sort_keys=True)})
    except (OSError, SafetensorError) as error:  # the latter on a full disk
        reason = getattr(error, "strerror", None) or error
        raise OutputNotWritable(f"{path}: cannot write the state ({reason})") from error


def load_state(
    path: Path,
    detector: Trained,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    digest: str,
    processes: int = 1,
) -> Progress:
    """Put a state of :func:`save_state` into detector, optimiser and scaler.

    Returns:
        How far the training was.

    Raises:
        BadInput: if the file is damaged, or belongs to another recipe or detector, or to another number of
            processes.
        ModelNotReady: if the run was trained on other CLIP weights.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["medzsad"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if header["format"] != FORMAT or header["recipe"] != digest:
            raise BadInput(f"{path}: the state of another recipe; start over with `fresh`")
        if header["processes"] != processes:
            raise BadInput(
                f"{path}: the state of a run of {header['processes']} process(es), not {processes}; go on "
                "with as many, or start over with `fresh`"
            )
        progress, fingerprint = Progress(**header["progress"]), header["clip"]
        scaling = header["scaler"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: the state is damaged; start over with `fresh`") from error
    check_fingerprint(fingerprint, detector.clip, None, made="this run was trained with")
    for name, parameter in trainable(detector).items():
        stored = tensors.get(f"parameter.{name}")
        if stored is None or stored.shape != parameter.shape:
            raise BadInput(f"{path}: not the state of this detector ({name}); start over with `fresh`")
        with torch.no_grad():
            parameter.copy_(stored)
        moments = {key: tensors[f"{key}.{name}"] for key in _MOMENTS if f"{key}.{name}" in tensors}
        if moments:
            # Adam keeps its count of steps on the CPU, whatever the device.
            optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device, parameter.dtype)
                for key, value in moments.items()
            }
    if scaling:
        scaler.load_state_dict(scaling)
    torch.set_rng_state(tensors["rng"])
    return progress
