"""A deterministic share of a job's items: by a hash of their names, whatever their order and number."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from medzsad.errors import BadInput

LARGEST = 100_000


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


def hash_of(name: str) -> int:
    """Return the first 64 bits of SHA-256 of a name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")
