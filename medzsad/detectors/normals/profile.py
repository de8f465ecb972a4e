"""What patches of normal images look like: per layer a linear subspace and a coreset of patches.

Two distances of a patch from normality, which complement each other:

- the residual outside of the principal subspace of normal patches, which needs few images (SubspaceAD,
  arXiv 2602.23013);
- the distance to the nearest of a greedily thinned set of normal patches (PatchCore, arXiv 2106.08265;
  AnomalyDINO, arXiv 2405.14529), which takes normal patches of several kinds.

Each is standardised by what it is for normal images that were left out, so that layers and distances can be
averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

CORESET = 2000  # patches kept of each layer
CANDIDATES = 40_000  # patches, drawn at random, that the coreset is chosen from
KEPT_VARIANCE = 0.99  # of the principal subspace, as in SubspaceAD
HELD_OUT = 12  # units that are left out in turn, at most
QUANTILE = 0.99  # of left-out patches, that a standardised distance of 1 stands for
LEAST_SPREAD = 0.02  # of that, as part of the patches' own deviation: normals may be all but the same
BLOCK = 1024  # patches compared with the coreset at once


@dataclass(frozen=True)
class LayerProfile:
    """One layer.

    Attributes:
        mean: float32 (C,).
        basis: float32 (C, K), orthonormal columns.
        coreset: float32 (M, C), or (M, C + 1) with the height along the stack.
        centre, spread: float32 (2,), of residual and distance: what becomes 0, and what is 1 above it.
        height_scale: float32 (), what the whole height of a stack counts as, in units of the features.
    """

    mean: Tensor
    basis: Tensor
    coreset: Tensor
    centre: Tensor
    spread: Tensor
    height_scale: Tensor

    @property
    def has_heights(self) -> bool:
        """Whether the coreset's patches have heights."""
        return self.coreset.shape[1] > len(self.mean)

    def score(self, features: Tensor, heights: Tensor | None = None, *, nearest_only: bool = False) -> Tensor:
        """Return how far patches are from normal ones.

        Args:
            features: float32 (B, C, h, w).
            heights: float32 (B,), relative heights along the stack, 0 to 1; None for images.
            nearest_only: leave the residual out.

        Returns:
            float32 (B, h, w): the mean of both standardised distances, about 0 for a typical normal patch and
            1 for one of a hundred.
        """
        count, channels, rows, columns = features.shape
        patches = features.permute(0, 2, 3, 1).reshape(-1, channels)
        own = None if heights is None else heights.to(patches).repeat_interleave(rows * columns)
        both = (self.distances(patches, own) - self.centre[:, None]) / self.spread[:, None]
        return (both[1] if nearest_only else both.mean(0)).view(count, rows, columns)

    def distances(self, patches: Tensor, heights: Tensor | None = None) -> Tensor:
        """Return residual and distance, float32 (2, N), of patches (N, C) at relative heights (N,)."""
        coreset = self.coreset
        compared = patches
        if self.has_heights:
            if heights is None:  # then they count for nothing
                coreset = coreset[:, : patches.shape[1]]
            else:
                compared = torch.cat([patches, self.height_scale * heights[:, None]], 1)
        return torch.stack([residuals(patches, self.mean, self.basis), nearest(compared, coreset)])


def residuals(patches: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """Return the lengths (N,) of what patches (N, C) have outside of the subspace through ``mean``."""
    centred = patches - mean
    return (centred - (centred @ basis) @ basis.T).norm(dim=1)


def nearest(patches: Tensor, coreset: Tensor) -> Tensor:
    """Return the Euclidean distance (N,) of patches (N, C) to the nearest of a coreset (M, C)."""
    return torch.cat([torch.cdist(block, coreset).amin(1) for block in patches.split(BLOCK)])


def fit_layer(
    units: Sequence[Tensor],
    *,
    heights: Sequence[Tensor] | None = None,
    height_weight: float = 0.0,
    held: Sequence[int] | None = None,
    kept_variance: float = KEPT_VARIANCE,
    coreset: int = CORESET,
    seed: int = 0,
) -> tuple[LayerProfile, dict[int, LayerProfile]]:
    """Make the profile of a layer, and the same without each of some units.

    Args:
        units: float32 (N, C) patches of each image or volume (of each view, where there is a single image):
            what is left out at once when distances of normal patches are measured. At least two.
        heights: float32 (N,) for each, relative heights along the stack, 0 to 1; None for images.
        height_weight: what the whole height counts as, in standard deviations of the patches; 0 for nothing.
        held: indices of the units to leave out in turn; by default :func:`held_out`.
        kept_variance: of the principal subspace.
        coreset: patches kept.
        seed: of the draws.

    Returns:
        The profile, and by index those that would be without a unit.

    Raises:
        ValueError: if there are fewer than two units.
    """
    if len(units) < 2:
        raise ValueError("a profile needs two images, or two views of one")
    draw = torch.Generator().manual_seed(seed)
    counts = torch.tensor([len(unit) for unit in units], dtype=torch.float64)
    sums = [unit.double().sum(0) for unit in units]
    products = [unit.double().T @ unit.double() for unit in units]
    share = min(1.0, CANDIDATES / float(counts.sum()))
    chosen = [torch.randperm(len(unit), generator=draw)[: max(1, round(share * len(unit)))] for unit in units]
    pool = torch.cat([unit[picked] for unit, picked in zip(units, chosen, strict=True)])
    owners = torch.cat([torch.full((len(picked),), index) for index, picked in enumerate(chosen)])
    mean, basis, deviation = _subspace(_sum(sums), _sum(products), float(counts.sum()), kept_variance)
    if not height_weight:
        heights = None
    height_scale = torch.tensor(height_weight * deviation)
    if heights is not None:
        stacked = torch.cat([height[picked] for height, picked in zip(heights, chosen, strict=True)])
        pool = torch.cat([pool, height_scale * stacked[:, None]], 1)
    picked = greedy_coreset(pool, coreset, draw)
    kept, kept_owners = pool[picked], owners[picked]

    whole = LayerProfile(mean, basis, kept, torch.zeros(2), torch.ones(2), height_scale)
    without: dict[int, LayerProfile] = {}
    found: list[Tensor] = []
    for index in held_out(len(units)) if held is None else held:
        others = [other for other in range(len(units)) if other != index]
        own_mean, own_basis, _ = _subspace(
            _sum([sums[other] for other in others]),
            _sum([products[other] for other in others]),
            float(counts[others].sum()),
            kept_variance,
        )
        left = kept_owners != index
        without[index] = replace(
            whole, mean=own_mean, basis=own_basis, coreset=kept[left] if bool(left.any()) else kept
        )
        some = torch.randperm(len(units[index]), generator=draw)[:4096]
        own_heights = None if heights is None else heights[index][some]
        found.append(without[index].distances(units[index][some], own_heights))
    both = torch.cat(found, 1)
    centre = both.median(1).values
    spread = (torch.quantile(both, QUANTILE, dim=1) - centre).clamp_min(LEAST_SPREAD * deviation + 1e-6)
    without = {index: replace(left, centre=centre, spread=spread) for index, left in without.items()}
    return replace(whole, centre=centre, spread=spread), without


def held_out(count: int) -> list[int]:
    """Return which of ``count`` units are left out in turn: evenly spread, at most :data:`HELD_OUT`."""
    return torch.linspace(0, count - 1, min(HELD_OUT, count)).round().int().tolist()


def greedy_coreset(patches: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Return indices (min(count, N),) of patches (N, C) such that none is far from all of these.

    Each is the one farthest from those before (PatchCore, algorithm 1), in a random projection.
    """
    if len(patches) <= count:
        return torch.arange(len(patches))
    if patches.shape[1] > 64:
        projection = torch.randn(patches.shape[1], 64, generator=draw) / 8
        patches = patches @ projection
    index = int(torch.randint(len(patches), (1,), generator=draw))
    distances = torch.full((len(patches),), torch.inf)
    chosen = []
    for _ in range(count):
        chosen.append(index)
        distances = torch.minimum(distances, (patches - patches[index]).square().sum(1))
        index = int(distances.argmax())
    return torch.tensor(chosen)


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).sum(0)


def _subspace(
    total: Tensor, product: Tensor, count: float, kept_variance: float
) -> tuple[Tensor, Tensor, float]:
    """Return mean, principal directions and the patches' deviation (root mean square of the distance to the
    mean) from sums of patches and of their outer products (float64).
    """
    mean = total / count
    values, vectors = torch.linalg.eigh(product / count - torch.outer(mean, mean))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    share = values.cumsum(0) / values.sum().clamp_min(1e-12)
    kept = int((share < kept_variance).sum()) + 1
    basis = vectors[:, : min(kept, len(values) - 1)].float().contiguous()
    return mean.float(), basis, float(values.sum().sqrt())
