"""The order of images: whole, the same from any step on, and shared by processes."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

from medzsad.training.sampling import Draw, EpochPlan, StepBatches


def test_every_image_once_an_epoch_in_another_order() -> None:
    plan = EpochPlan([5, 8], [1.0, 1.0], seed=3)
    first, second = plan.order(0), plan.order(1)
    assert sorted(first) == sorted(second) == list(range(13))
    assert list(first) != list(second)
    assert list(first) == list(EpochPlan([5, 8], [1.0, 1.0], seed=3).order(0))
    assert list(first) != list(EpochPlan([5, 8], [1.0, 1.0], seed=4).order(0))


def test_weights_of_data_sets() -> None:
    plan = EpochPlan([5, 8], [2.4, 0.5], seed=3)
    assert plan.length == 12 + 4
    seen = Counter(plan.order(0).tolist())
    assert sum(n for i, n in seen.items() if i < 5) == 12
    assert all(2 <= seen[i] <= 3 for i in range(5))
    halves = [{i for i in plan.order(epoch).tolist() if i >= 5} for epoch in range(8)]
    assert all(len(half) == 4 for half in halves)
    assert set.union(*halves) == set(range(5, 13))  # not always the same half


def test_from_any_step_on_it_goes_as_from_the_start() -> None:
    plan = EpochPlan([10], [1.0], seed=1)
    whole = list(StepBatches(plan, 4, epochs=3))
    assert len(whole) == 9
    for start in range(10):
        later = StepBatches(plan, 4, epochs=3, start=start)
        assert list(later) == whole[start:]
        assert len(later) == len(whole) - start


def test_steps_are_full() -> None:
    batches = list(StepBatches(EpochPlan([10], [1.0], seed=1), 4, epochs=1))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert {draw.image for batch in batches for draw in batch} == set(range(10))
    assert batches[2][2:] == batches[0][:2]  # filled from the beginning
    assert Draw(4, 0, 9).index(9) == 2  # a tuple like any other
    small = list(StepBatches(EpochPlan([3], [1.0], seed=1), 8, epochs=1))
    assert Counter(draw.image for draw in small[0]).most_common()[-1][1] == 2


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_see_what_one_would(world_size: int) -> None:
    plan = EpochPlan([11], [1.0], seed=2)
    one = list(StepBatches(plan, 2 * world_size, epochs=2))
    shares = [
        list(StepBatches(plan, 2, epochs=2, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == one
