"""What patches of normal images look like: subspace, coreset, heights."""

from __future__ import annotations

import pytest
import torch

from medzsad.detectors.normals.profile import fit_layer, greedy_coreset, held_out, nearest, residuals


def patches(seed: int, count: int = 200, dimensions: int = 3, channels: int = 12) -> torch.Tensor:
    """Patches in a subspace that is the same for all seeds, with a little noise around it."""
    plane = torch.randn(dimensions, channels, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimensions, generator=draw) @ plane + 0.05 * torch.randn(
        count, channels, generator=draw
    )


def test_the_subspace_is_found_and_what_is_outside_of_it_is_far() -> None:
    profile, _ = fit_layer([patches(1), patches(2), patches(3)])
    assert profile.basis.shape == (12, 3)
    torch.testing.assert_close(profile.basis.T @ profile.basis, torch.eye(3), atol=1e-5, rtol=0)
    normal, strange = patches(4), torch.randn(200, 12, generator=torch.Generator().manual_seed(5))
    inside = residuals(normal, profile.mean, profile.basis)
    assert residuals(strange, profile.mean, profile.basis).median() > 5 * inside.median()


def test_scores_are_about_0_for_normal_patches_and_1_for_one_of_a_hundred() -> None:
    profile, without = fit_layer([patches(seed) for seed in range(1, 9)])
    scores = profile.score(patches(20, 1000).T.reshape(1, 12, 25, 40)).flatten()
    assert abs(float(scores.median())) < 0.3
    assert 0.6 < float(scores.quantile(0.99)) < 1.6
    assert sorted(without) == list(range(8))


def test_what_is_left_out_is_in_neither_subspace_nor_coreset() -> None:
    strange = patches(2) + 5
    whole, without = fit_layer([patches(1), strange, patches(3)])
    assert float(nearest(strange, whole.coreset).median()) < 0.3
    assert float(nearest(strange, without[1].coreset).median()) > 3
    again, _ = fit_layer([patches(1), patches(3)])
    torch.testing.assert_close(without[1].mean, again.mean, atol=1e-5, rtol=1e-4)


def test_the_coreset_leaves_no_patch_far_away() -> None:
    clusters = torch.cat([torch.randn(500, 4) * 0.01, torch.randn(5, 4) * 0.01 + 3])
    chosen = greedy_coreset(clusters, 8, torch.Generator().manual_seed(0))
    assert len(set(chosen.tolist())) == 8
    assert float(nearest(clusters, clusters[chosen]).max()) < 0.1  # the five are represented
    assert greedy_coreset(clusters[:3], 8, torch.Generator()).tolist() == [0, 1, 2]


def test_heights_count_by_their_weight() -> None:
    units = [patches(seed) for seed in (1, 2)]
    heights = [torch.linspace(0, 1, 200)] * 2
    unweighted, _ = fit_layer(units, heights=heights)
    assert not unweighted.has_heights
    profile, _ = fit_layer(units, heights=heights, height_weight=10.0)
    assert profile.coreset.shape[1] == 13
    at = units[0][:5]
    near = profile.distances(at, heights[0][:5])
    torch.testing.assert_close(near[1], torch.zeros(5), atol=1e-2, rtol=0)
    far = profile.distances(at, torch.ones(5))
    assert bool((far[1] > 1).all())
    torch.testing.assert_close(far[0], near[0])  # residuals know no heights
    torch.testing.assert_close(profile.distances(at)[1], torch.zeros(5), atol=1e-2, rtol=0)


def test_normals_that_are_all_but_the_same_leave_room() -> None:
    profile, _ = fit_layer([patches(1), patches(1)])
    assert bool((profile.spread > 1e-3).all())


def test_one_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="two images"):
        fit_layer([patches(1)])


def test_what_is_left_out_is_spread_evenly() -> None:
    assert held_out(3) == [0, 1, 2]
    assert held_out(100)[0] == 0
    assert held_out(100)[-1] == 99
    assert len(held_out(100)) == 12
