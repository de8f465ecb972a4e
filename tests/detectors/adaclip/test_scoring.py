"""Hybrid semantic fusion, against the same written as plain loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.adaclip.scoring import fuse_patches, group


@pytest.fixture
def patches() -> Tensor:
    """Two images of 3 layers and 40 patches in 4 well separated groups, of 16 dimensions."""
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(4, 16, generator=generator)
    noise = 0.05 * torch.randn(2, 3, 40, 16, generator=generator)
    return F.normalize(centres.repeat_interleave(10, 0) + noise, dim=-1)


@pytest.fixture
def probabilities() -> Tensor:
    """Rising from patch to patch: the last group of ten is the most suspicious."""
    return torch.linspace(0.1, 0.9, 40).expand(2, 40)


def test_code_variant_is_the_mean_of_the_clusters_centroids(patches: Tensor, probabilities: Tensor) -> None:
    # 4 clusters: the top 20 patches, two groups of ten, fall into at most 4 clusters.
    fused = fuse_patches(patches, probabilities, variant="code", clusters=4, seed=3)
    for image in range(2):
        chosen = probabilities[image].topk(20).indices
        membership = group(patches[image, :, chosen].transpose(0, 1).flatten(1), 4, 3)
        centroids = []
        for row in membership:
            members = chosen[row > 0]
            tokens = patches[image, :, members].reshape(-1, 16)  # of all layers
            centroids.append(tokens.mean(0))
        torch.testing.assert_close(fused[image], F.normalize(torch.stack(centroids).mean(0), dim=0))


def test_as_many_clusters_as_patches_is_the_mean_of_all(patches: Tensor, probabilities: Tensor) -> None:
    fused = fuse_patches(patches, probabilities, variant="code", clusters=40)
    torch.testing.assert_close(fused, F.normalize(patches.mean((1, 2)), dim=-1))


def test_paper_variant_is_the_most_suspicious_clusters_centroid(
    patches: Tensor, probabilities: Tensor
) -> None:
    fused = fuse_patches(patches, probabilities, variant="paper", clusters=4)
    torch.testing.assert_close(fused, F.normalize(patches[:, :, 30:].mean((1, 2)), dim=-1))


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_the_seed_decides_and_images_do_not_touch_each_other(
    patches: Tensor, probabilities: Tensor, variant: str
) -> None:
    noisy = F.normalize(torch.randn(2, 3, 40, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    first = fuse_patches(noisy, probabilities, variant=variant, clusters=5, seed=1)
    assert torch.equal(first, fuse_patches(noisy, probabilities, variant=variant, clusters=5, seed=1))
    alone = fuse_patches(noisy[1:], probabilities[1:], variant=variant, clusters=5, seed=1)
    torch.testing.assert_close(first[1:], alone)
    seeds = [fuse_patches(noisy, probabilities, variant=variant, clusters=5, seed=s) for s in range(6)]
    assert any(not torch.equal(first, other) for other in seeds)


def test_identical_patches_make_one_cluster_and_no_warning(
    probabilities: Tensor, recwarn: pytest.WarningsRecorder
) -> None:
    same = F.normalize(torch.ones(2, 3, 40, 16), dim=-1)
    torch.testing.assert_close(fuse_patches(same, probabilities, clusters=20), same[:, 0, 0])
    assert not recwarn.list


def test_gradients_flow_through_the_averages(patches: Tensor, probabilities: Tensor) -> None:
    leaf = patches.clone().requires_grad_(True)
    fuse_patches(leaf, probabilities, clusters=4).sum().backward()
    used = leaf.grad.abs().sum((1, 3)) > 0
    assert used.sum(1).tolist() == [20, 20]
    with pytest.raises(ValueError, match="unknown fusion"):
        fuse_patches(patches, probabilities, variant="magic")
