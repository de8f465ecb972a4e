from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medzsad.metrics import bounds
from medzsad.metrics.bounds import Bounded
from medzsad.metrics.ranking import rank, rank_sorted
from medzsad.metrics.undefined import Undefined


def orders(count: int):
    """Every ranking with ties of ``count`` scores, as numbers in (0, 1)."""
    for levels in itertools.product(range(count), repeat=count):
        if set(levels) == set(range(max(levels) + 1)):
            yield (np.array(levels) + 0.5) / count


@pytest.mark.parametrize(
    "counts", [[(1, 2)], [(2, 2)], [(0, 1), (2, 2)], [(1, 0), (2, 1), (1, 1)], [(3, 1), (1, 2)]]
)
def test_bounds_are_those_of_all_orders_inside_the_bins(counts):
    """Every order is tried: none lies outside, and some come close to either end."""
    tallies = bounds.Tallies.of(*np.array(counts).T)
    found = {"auroc": bounds.roc_area(tallies), "ap": bounds.average_precision(tallies)}
    found["f1"] = bounds.best_f1(tallies)[0]
    found["area"] = bounds.partial_area(tallies, tallies.positives, tallies.all_positives, 0.4)
    seen: dict[str, list[float]] = {name: [] for name in found}
    for parts in itertools.product(*(list(orders(p + n)) for p, n in counts)):
        scores = np.concatenate([part - number for number, part in enumerate(parts)])
        labels = np.concatenate([[1] * p + [0] * n for p, n in counts])
        ranking = rank(scores, labels)
        seen["auroc"].append(ranking.auroc())
        seen["ap"].append(ranking.ap())
        seen["f1"].append(ranking.f1_max())
        weighted = rank_sorted(np.sort(scores), scores[labels == 1], np.ones(labels.sum()), labels.sum())
        seen["area"].append(weighted.aupro(0.4))
    for name, bounded in found.items():
        assert bounded.lower <= min(seen[name]), name
        assert max(seen[name]) <= bounded.upper, name
        # The ends are attained, but for AP's lower one, which rounds harmonic numbers down.
        assert min(seen[name]) - bounded.lower < (0.02 if name == "ap" else 1e-9), name
        assert bounded.upper - max(seen[name]) < 1e-9, name


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 50]), st.sampled_from([1, 30, 10**6]))
def test_lower_bound_of_ap_is_rigorous_for_any_counts(seed, bins, most):
    """All anomalous scores below the normal ones of their bin: the worst order, summed term by term."""
    rng = np.random.default_rng(seed)
    new, wrong = rng.integers(0, 40, bins), rng.integers(0, most + 1, bins)
    new[0] += 1
    tallies = bounds.Tallies.of(new, wrong)
    worst = 0.0
    for p, tp, fp in zip(new, tallies.tp_before, tallies.fp, strict=True):
        steps = np.arange(1, p + 1)
        worst += ((tp + steps) / (tp + steps + fp)).sum()
    worst /= tallies.all_positives
    lower = bounds.average_precision(tallies).lower
    assert lower <= worst
    assert worst - lower < 0.02


def test_a_bin_of_one_class_needs_no_room():
    tallies = bounds.Tallies.of(np.array([3, 0, 2]), np.array([0, 4, 0]))
    assert bounds.roc_area(tallies).error < 1e-9
    assert bounds.best_f1(tallies)[0].error < 1e-9
    # Average precision depends on whether the last two are tied.
    found = bounds.average_precision(tallies)
    assert found.upper == pytest.approx(3 / 5 + 2 / 5 * 5 / 9)
    assert found.lower == pytest.approx(3 / 5 + (4 / 8 + 5 / 9) / 5, abs=1e-3)
    assert found.lower < found.value < found.upper


def test_bins_of_one_score_leave_nothing_open():
    new, wrong = np.array([1, 2, 0]), np.array([1, 3, 2])
    tallies = bounds.Tallies.of(new, wrong, np.zeros(3, bool))
    ranking = rank(np.repeat([3, 2, 1, 3, 2, 1], np.r_[new, wrong]), np.repeat([1, 0], [3, 6]))
    for bounded, exact in (
        (bounds.roc_area(tallies), ranking.auroc()),
        (bounds.average_precision(tallies), ranking.ap()),
        (bounds.best_f1(tallies)[0], ranking.f1_max()),
    ):
        assert bounded.value == pytest.approx(exact, abs=1e-12)
        assert bounded.error < 2e-12


def test_errors_are_to_the_farther_bound():
    assert Bounded(0.5, 0.4, 0.7).error == pytest.approx(0.2)
    assert Bounded(0.5, 0.1, 0.7).error == pytest.approx(0.4)


def test_means():
    assert bounds.mean([Bounded(0.5, 0.25, 1), Bounded.exact(0)]) == Bounded(0.25, 0.125, 0.5)
    assert bounds.mean([Bounded.exact(1), Undefined("why")]) == Undefined("why")
