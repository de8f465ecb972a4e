"""SHA-256 of files, settings and tensors, which caches know entries by, and shares of a job by names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.errors import BadInput, MedzsadError

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 100_000  # number of shares


def hash_settings(value: Any) -> str:
    """Return 64 hexadecimal digits for a JSON-able value; what is none counts as it is printed."""
    return hashlib.sha256(settings_text(value)).hexdigest()


def settings_text(value: Any) -> bytes:
    """Return what :func:`hash_settings` hashes: JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, default=str).encode()


def hash_files(*paths: Path, kind: type[MedzsadError] = BadInput) -> str:
    """Return 64 hexadecimal digits for the contents of files, in order; a folder counts as its files, sorted.

    Raises:
        BadInput, or ``kind``: if one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        for part in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            try:
                with open(part, "rb") as file:
                    while piece := file.read(1 << 20):
                        digest.update(piece)
            except OSError as error:
                raise kind(f"{part} cannot be read ({error.strerror or error}); check the file.") from error
    return digest.hexdigest()


def hash_tensors(tensors: Mapping[str, Tensor], start: bytes = b"") -> str:
    """Return 64 hexadecimal digits for names, shapes, types and values, whatever their order.

    Args:
        tensors: by name, on any device.
        start: what is hashed before them.
    """
    import torch

    digest = hashlib.sha256(start)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_of(name: str) -> int:
    """Return the first 64 bits of SHA-256 of a name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")


@dataclass(frozen=True)
class Shard:
    """One of ``count`` shares, which together hold every item exactly once.

    >>> sum(Shard(number, 3).holds("case7") for number in (1, 2, 3))
    1

    Attributes:
        number: from 1 to ``count``.
        count: how many there are.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``"3/10"``: the third of ten.

        Raises:
            BadInput: if it is no such fraction.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count <= LARGEST:
            raise BadInput(
                f"`shard` {text}: give i/n with i from 1 to n, such as 3/10 (Slurm: --array=1-10 and "
                "`shard` $SLURM_ARRAY_TASK_ID/10)"
            )
        return cls(number, count)

    def holds(self, name: str) -> bool:
        """Whether the item of that name is of this share."""
        return hash_of(name) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
