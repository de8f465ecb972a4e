"""Detector checkpoints: one safetensors file with JSON metadata inside. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.errors import ModelNotReady, OutputNotWritable
from medzsad.limits import require_file
from medzsad.storage.atomic import replacing
from medzsad.storage.cache import read_header
from medzsad.storage.text_files import parse_json

if TYPE_CHECKING:
    from torch import Tensor

    from medzsad.detectors.clip.backbone import FrozenCLIP
    from medzsad.detectors.clip.generic import GenericCLIP

FORMAT = "medzsad-1"
ENDINGS = (".safetensors", ".normals")
"""Of files that can be nothing but checkpoints; others are known by their content."""
FINGERPRINT_TOLERANCE = 2e-3  # wider than what rounding to half precision does


@dataclass(frozen=True)
class Checkpoint:
    """A detector at rest.

    Attributes:
        method: the detector class's ``method``, e.g. ``"headclip"``.
        tensors: what was learned, by name.
        settings: what the class needs to be built again (backbone, image size, layers, ...).
        training: how it came about (data, licence of the data, seed, version); free-form.
    """

    method: str
    tensors: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write ``checkpoint`` atomically (temporary name, then rename).

    Raises:
        OutputNotWritable: if the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from medzsad import __version__

    path = Path(path)
    header = {
        "format": FORMAT,
        "method": checkpoint.method,
        "settings": checkpoint.settings,
        "training": checkpoint.training,
        "medzsad_version": __version__,
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"medzsad": json.dumps(header, sort_keys=True)})
    except (OSError, SafetensorError) as error:  # the latter on a full disk
        reason = getattr(error, "strerror", None) or error
        raise OutputNotWritable(f"{path}: cannot write the checkpoint ({reason})") from error


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of :func:`save_checkpoint`.

    Raises:
        ModelNotReady: if the file is missing, damaged, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = require_file(path, ModelNotReady)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise ModelNotReady(f"{path}: no such checkpoint file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelNotReady(
            f"{path}: not a readable safetensors file, perhaps damaged or cut short; copy it again"
        ) from error
    try:
        header = parse_json(metadata["medzsad"], f"{path}: not a medzsad checkpoint", ModelNotReady)
        if header["format"] != FORMAT:
            raise ModelNotReady(
                f"{path}: checkpoint format {header['format']!r} is not {FORMAT!r}; "
                "it was written by another version of medzsad"
            )
        found = Checkpoint(header["method"], tensors, header["settings"], header["training"])
    except (KeyError, TypeError) as error:
        raise ModelNotReady(
            f"{path}: a safetensors file, but not a medzsad checkpoint (no metadata)"
        ) from error
    parts_fit = isinstance(found.settings, dict) and isinstance(found.training, dict)
    if not isinstance(found.method, str) or not parts_fit:
        raise ModelNotReady(f"{path}: a medzsad checkpoint with damaged metadata; copy it again")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelNotReady(f"{path}: {name} holds values that are no finite numbers; make it anew")
    return found


def is_checkpoint_name(name: str) -> bool:
    """Whether a name is that of a checkpoint of ours, by its ending or by what is in the file."""
    if name.endswith(ENDINGS):
        return True
    path = Path(name).expanduser()
    try:
        return path.is_file() and "medzsad" in read_header(path)[0]
    except (ModelNotReady, OSError):
        return False


def check_fingerprint(
    stored: Sequence[float] | None,
    clip: FrozenCLIP | GenericCLIP,
    named: str | None,
    *,
    made: str = "the detector was trained with",
) -> None:
    """Check that ``clip`` holds the weights that a checkpoint was made with.

    Args:
        stored: the fingerprint in the checkpoint; None if it has none, which passes.
        clip: the backbone.
        named: what the checkpoint calls its weights, for the message.
        made: what was done with them, for the message.

    Raises:
        ModelNotReady: if they are others. Rounding to half precision is tolerated.
    """
    if stored is None:
        return
    found = clip.fingerprint()
    if len(stored) != len(found) or any(
        abs(a - b) > FINGERPRINT_TOLERANCE * abs(b) for a, b in zip(stored, found, strict=True)
    ):
        raise ModelNotReady(
            f"the CLIP weights given for {clip.name} are not those that {made} ({named or 'unnamed'})"
        )
