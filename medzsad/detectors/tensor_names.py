"""Names of the tensors in files of others: their words, their numbers, and a short listing of all of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def listing(tensors: Mapping[str, Tensor], limit: int = 24) -> str:
    """Return names and shapes in one line; those that differ in a number come once: ``w.{0-23} (16,)``."""
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        groups[template(name), tuple(tensor.shape)].append(name)
    texts = []
    for (pattern, shape), names in groups.items():
        columns = [sorted(set(column)) for column in zip(*map(numbers, names), strict=True)]
        ranges = iter(str(c[0]) if len(c) == 1 else f"{{{c[0]}-{c[-1]}}}" for c in columns)
        text = "".join(next(ranges) if part == "*" else part for part in re.split(r"(\*)", pattern))
        texts.append(f"{text} {shape}")
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return (", ".join(texts[:limit]) or "no tensors") + more


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, named without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def template(name: str) -> str:
    """Return the name with ``*`` for every number."""
    return re.sub(r"\d+", "*", name.replace("*", "?"))


def numbers(name: str) -> list[int]:
    """Return the numbers in a name, in order; also a key to sort names by."""
    return [int(number) for number in re.findall(r"\d+", name)]


def last_part(name: str) -> str:
    """Return what stands after the last dot."""
    return name.rpartition(".")[2]


def words(name: str) -> set[str]:
    """Return the words of a name in lower case, without ``imageEncoder`` and the like, which say nothing."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    name = re.sub(r"(image|img|vision|visual|text)_?(encoder|tower)", "", name)
    return set(re.split(r"[^a-z]+", name)) - {""}
