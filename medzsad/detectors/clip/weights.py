"""CLIP weights: from an open_clip tag, a local file or a state dict to plain float32 tensors.

Nothing in a file is run: PyTorch files are read with ``weights_only=True``, safetensors hold no code, and of
TorchScript archives, as OpenAI published, the tensors alone (:mod:`medzsad.detectors.clip.torchscript`).
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medzsad.detectors.clip.pretrained import HINT, find_weights
from medzsad.detectors.clip.torchscript import is_torchscript, read_torchscript
from medzsad.errors import ModelNotReady
from medzsad.limits import require_file
from medzsad.scans.library_warnings import hushed
from medzsad.storage.cache import METADATA_KEY, read_header

_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
_TEXT_PARTS = ("text_projection", "positional_embedding", "token_embedding.", "transformer.", "ln_final.")


class ClipState(NamedTuple):
    """Weights as loaded.

    Attributes:
        tensors: float32, named ``visual.*`` and ``text.*``.
        quick_gelu: whether these weights were trained with QuickGELU; None if the file does not tell.
        origin: what to call them in messages.
    """

    tensors: dict[str, Tensor]
    quick_gelu: bool | None
    origin: str


def load_clip_state(
    weights: str | os.PathLike[str] | Mapping[str, Tensor], *, model: str | None, text: bool
) -> ClipState:
    """Load weights.

    Args:
        weights: an open_clip pretrained tag (``"openai"``), a file (OpenAI's ``.pt``, a state dict in
            ``.pt``, ``.pth`` or ``.bin``, or ``.safetensors``), or a state dict with open_clip's names.
        model: open_clip's name of the model, which a tag needs; None for a model given by its configuration.
        text: also keep the text tower's tensors.

    Raises:
        ModelNotReady: if the file is missing, damaged or unsafe, the tag is unknown, or the download fails.
    """
    quick_gelu: bool | None = None
    if isinstance(weights, Mapping):
        raw, origin = dict(weights), "the given state dict"
    else:
        path, quick_gelu = find_weights(os.fspath(weights), model)
        raw, archive = read_tensors(path)
        origin = str(path)
        if quick_gelu is None:
            quick_gelu = _recorded_quick_gelu(path)
        if quick_gelu is None and (archive or set(_OPENAI_EXTRAS) <= raw.keys() or _named_openai(path)):
            quick_gelu = True
    if any(name.startswith(("vision_model.", "clip.vision_model.")) for name in raw):
        raise ModelNotReady(
            f"{origin}: CLIP weights in the layout of Hugging Face transformers; needed is open_clip's layout"
        )
    tensors = {}
    for name in list(raw):
        tensor, key = raw.pop(name), unwrapped(name)
        if key.startswith(_TEXT_PARTS):
            key = f"text.{key}"
        if key.startswith("visual.") or (text and key.startswith("text.")):
            # A copy, because the tensor may be a view of a mapped file.
            tensors[key] = tensor.detach().to("cpu", torch.float32, copy=True)
    if not tensors:
        raise ModelNotReady(f"{origin}: holds no CLIP weights (no tensor named visual.*); {HINT}")
    return ClipState(tensors, quick_gelu, origin)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], bool]:
    """Read the tensors of a file, whatever its suffix says, without running anything in it.

    Returns:
        The tensors by name (those of nested dictionaries and lists joined by dots, without what training
        programs put before, see :func:`unwrapped`), and whether the file is a TorchScript archive.

    Raises:
        ModelNotReady: if the file cannot be read or holds more than tensors.
    """
    path = require_file(path, ModelNotReady)
    try:
        with open(path, "rb") as file:
            head = file.read(24)
    except OSError as error:
        raise ModelNotReady(f"{path}: cannot be read ({error.strerror or error})") from error
    if head.startswith(b"version https://git-lfs"):
        raise ModelNotReady(f"{path}: a Git LFS pointer, not the weights themselves; fetch the real file")
    if head[8:9] == b"{":
        tensors, archive = _read_safetensors(path), False
    elif is_torchscript(path):
        tensors, archive = read_torchscript(path), True
    else:
        content = read_pytorch_file(path)
        if not isinstance(content, Mapping):
            raise ModelNotReady(f"{path}: holds a {type(content).__name__}, not a state dict")
        tensors, archive = _flatten(content), False
    return {unwrapped(name): tensor for name, tensor in tensors.items()}, archive


def install(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, origin: str, model: str) -> None:
    """Make the tensors ``prefix + name`` the parameters of ``module``, which may be on the meta device.

    Raises:
        ModelNotReady: if tensors are missing or of another shape.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if prefix + name not in tensors]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelNotReady(f"{origin}: not the weights of {model}: {prefix}{missing[0]}{more} missing")
    for name, parameter in wanted.items():
        found = tensors[prefix + name].shape
        if found != parameter.shape:
            raise ModelNotReady(
                f"{origin}: not the weights of {model}: {prefix}{name} is {tuple(found)}, "
                f"needed is {tuple(parameter.shape)}"
            )
    surplus = [
        n for n in tensors if n.startswith(f"{prefix}transformer.") and n.removeprefix(prefix) not in wanted
    ]
    if surplus:
        raise ModelNotReady(f"{origin}: not the weights of {model}: it has no {surplus[0]}")
    module.load_state_dict({name: tensors[prefix + name] for name in wanted}, assign=True)


def _recorded_quick_gelu(path: Path) -> bool | None:
    """Return what the record in a file of the model cache says (see :mod:`medzsad.zoo.convert`)."""
    try:
        record = json.loads(read_header(path)[0].get(METADATA_KEY, "{}"))
    except (ModelNotReady, OSError, ValueError):
        return None
    return record.get("quick_gelu") if isinstance(record, dict) else None


def _named_openai(path: Path) -> bool:
    name = path.name.lower()
    # In the hub's cache the folder says it: models--timm--vit_large_patch14_clip_336.openai.
    return "openai" in name or "quickgelu" in name or any(p.endswith(".openai") for p in path.parts)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelNotReady(
            f"{path}: not a readable safetensors file, perhaps damaged or cut short"
        ) from error


def unwrapped(name: str) -> str:
    """Return a tensor's name without what training programs put before it, as ``model.`` or ``module.``."""
    parts = [part for part in name.split(".") if part != "module"]
    while len(parts) > 1 and parts[0] in ("state_dict", "model_state_dict", "model"):
        del parts[0]
    return ".".join(parts)


def read_pytorch_file(path: str | os.PathLike[str]) -> Any:
    """Read what ``torch.save`` wrote, tensors and plain containers only.

    Raises:
        ModelNotReady: if the file is missing or damaged, or holds anything that could run code.
    """
    try:
        # PyTorch warns of pickle protocols, but a file either loads or is refused. It is opened here, since
        # PyTorch goes by the ending of a name.
        with hushed(), open(path, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelNotReady(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise ModelNotReady(
            f"{path}: refused, because it is damaged or holds more than tensors (unpickling could run code)"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise ModelNotReady(
            f"{path}: not a readable PyTorch file, perhaps damaged or cut short; copy it again"
        ) from error


def _flatten(content: Any, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of nested dictionaries and lists, their names joined by dots."""
    flat: dict[str, Tensor] = {}
    todo = [(prefix, content)]
    while todo:  # no recursion: a file may nest as deep as it likes
        name, value = todo.pop()
        if isinstance(value, Tensor):
            flat[name] = value
        elif isinstance(value, Mapping):
            todo += reversed([(f"{name}.{key}" if name else str(key), part) for key, part in value.items()])
        elif isinstance(value, list | tuple):
            todo += reversed([(f"{name}.{i}" if name else str(i), part) for i, part in enumerate(value)])
    return flat
