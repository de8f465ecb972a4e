"""A choice of samples that stands for the whole set."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from medzsad.datasets.samples import Sample, spread


def make(sizes):
    return [
        Sample(Path(f"{group}/{i}.png"), group % 2, None, f"class{group // 2}", "k", f"{group}/{i}")
        for group, size in enumerate(sizes)
        for i in range(size)
    ]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 120), st.integers(0, 5))
def test_size_order_shares_and_groups(sizes, limit, seed):
    samples = make(sizes)
    part = spread(samples, limit, seed)
    assert len(part) == min(limit, len(samples))
    assert len(set(part)) == len(part)
    assert [s for s in samples if s in set(part)] == list(part)
    counts = Counter((s.class_name, s.label) for s in part)
    if limit >= len(sizes):
        assert len(counts) == len(sizes)
    assert part == spread(samples, limit, seed)


def test_neighbours_are_not_taken_together():
    part = spread(make([100]), 10, seed=3)
    numbers = [int(s.image.stem) for s in part]
    assert {b - a for a, b in pairwise(numbers)} == {10}
    assert len({spread(make([100]), 10, seed)[0].id for seed in range(8)}) > 3


def test_shares_are_in_proportion():
    part = spread(make([60, 30, 10]), 20)
    assert [sum(s.id.startswith(f"{g}/") for s in part) for g in range(3)] == [12, 6, 2]
