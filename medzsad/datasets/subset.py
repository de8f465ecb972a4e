"""A small part of a data set that stands for the whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from medzsad.datasets.samples import Sample, VolumeSample
from medzsad.errors import BadInput

AnySample = TypeVar("AnySample", bound=Sample | VolumeSample)


def spread(samples: Sequence[AnySample], limit: int, seed: int = 0) -> tuple[AnySample, ...]:
    """At most ``limit`` samples, in their order.

    Each class and label gets its share (largest remainders), and at least one sample as long as the limit
    allows. Within it the samples are evenly spread over the order: one of every n/k, at the same random place
    of each stretch. So neighbours, which often are slices of one patient, are not taken together.

    Args:
        samples: what to choose from.
        limit: 1 or more.
        seed: of the random places; the same seed gives the same samples on every machine.

    Raises:
        BadInput: if ``limit`` is less than 1.
    """
    if limit < 1:
        raise BadInput(f"the limit must be at least 1, not {limit}.")
    if limit >= len(samples):
        return tuple(samples)
    groups: dict[tuple[str, int], list[int]] = {}
    for index, sample in enumerate(samples):
        label = sample.label if isinstance(sample, Sample) else 0  # a volume's is not known yet
        groups.setdefault((sample.class_name, label), []).append(index)
    dice = random.Random(seed)
    chosen: list[int] = []
    for members, quota in zip(
        groups.values(), _quotas([len(g) for g in groups.values()], limit), strict=True
    ):
        place = dice.random()
        chosen += [members[int((i + place) * len(members) / quota)] for i in range(quota)]
    return tuple(samples[index] for index in sorted(chosen))


def _quotas(sizes: Sequence[int], limit: int) -> list[int]:
    """``limit`` split in proportion to ``sizes``, none above its size, none 0 if ``limit`` allows."""
    total = sum(sizes)
    exact = [limit * size / total for size in sizes]
    quotas = [int(share) for share in exact]
    if limit >= len(sizes):
        quotas = [max(1, quota) for quota in quotas]
    while sum(quotas) < limit:
        room = [i for i in range(len(sizes)) if quotas[i] < sizes[i]]
        quotas[max(room, key=lambda i: (exact[i] - quotas[i], -i))] += 1
    while sum(quotas) > limit:
        spare = [i for i in range(len(sizes)) if quotas[i] > 1]
        quotas[min(spare, key=lambda i: (exact[i] - quotas[i], -i))] -= 1
    return quotas
