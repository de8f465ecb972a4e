"""Tensors of a TorchScript archive, as OpenAI published its CLIPs, read without running anything in it.

``torch.jit.load`` runs code of the archive (``__setstate__``), which can write files. Here the archive's
object tree is rebuilt from inert objects: what it names is a tensor, a storage, an empty shell, or refused.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medzsad.errors import ModelNotReady

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MOST_OBJECTS = 200_000
"""Attributes of all modules together; OpenAI's largest CLIP has 17,000."""


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(
                name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist()
            )
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive by name, as its ``state_dict`` would have them.

    Raises:
        ModelNotReady: if the archive is damaged, compressed (PyTorch's are not), or its modules restore
            themselves by code of their own.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            prefix = next(n for n in archive.namelist() if n.endswith("/constants.pkl")).partition("/")[0]
            root = _unpickle(archive, prefix)
        return _state(root)
    except ModelNotReady as error:
        raise ModelNotReady(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can make the unpickler raise anything
        raise ModelNotReady(f"{path}: not a readable TorchScript archive, perhaps damaged") from error


def _unpickle(archive: zipfile.ZipFile, prefix: str) -> Any:
    class Shell:
        """What every class of the archive becomes."""

        state: Any = None

        def __setstate__(self, state: Any) -> None:
            self.state = state

    def tensor(
        storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> Tensor:
        return storage.as_strided(size, stride, offset)  # refuses what lies outside

    def same(value: Any, *_: Any) -> Any:
        return value

    class Reader(pickle._Unpickler):
        """In Python, since the C one allocates as much memory as a file makes it."""

        def find_class(self, module: str, name: str) -> Any:
            if module.startswith("__torch__"):
                return Shell
            if module == "torch" and name in _STORAGES:
                return _STORAGES[name]
            known = {
                ("torch._utils", "_rebuild_tensor_v2"): tensor,
                ("collections", "OrderedDict"): dict,
                **{
                    ("torch.jit._pickle", f"build_{kind}list"): same
                    for kind in ("int", "double", "bool", "tensor")
                },
                ("torch.jit._pickle", "restore_type_tag"): same,
            }
            if (module, name) not in known:
                raise ModelNotReady(f"refused: it names {module}.{name}, which is no part of a tensor")
            return known[module, name]

        def persistent_load(self, key: Any) -> Tensor:
            _, dtype, name, _, count = key
            if (name, dtype) not in storages:
                content = _member(archive, f"{prefix}/data/{name}")
                if len(content) < count * dtype.itemsize:
                    raise ModelNotReady(f"damaged: data/{name} is too short")
                storages[name, dtype] = (
                    torch.frombuffer(bytearray(content), dtype=dtype)
                    if content
                    else torch.empty(0, dtype=dtype)
                )
            return storages[name, dtype]

    storages: dict[tuple[str, torch.dtype], Tensor] = {}
    return Reader(io.BytesIO(_member(archive, f"{prefix}/data.pkl"))).load()


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a file of the archive, which takes no more memory than the archive has bytes."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ModelNotReady("refused: a compressed archive, which PyTorch does not write")
    return archive.read(info)


def _state(root: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    todo, seen = [("", root)], 0
    while todo:
        prefix, shell = todo.pop()
        if not isinstance(shell.state, dict):
            raise ModelNotReady("refused: its modules restore themselves by code of their own")
        for name, value in reversed(shell.state.items()):
            seen += 1
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            elif hasattr(value, "state"):
                todo.append((f"{prefix}{name}.", value))
        if seen > _MOST_OBJECTS:
            raise ModelNotReady("refused: its modules contain one another")
    return found
