"""MuSc's mutual scoring (arXiv 2401.16753) as functions of tensors, in blocks, so that memory is bounded.

A patch is normal if most scans have one like it. For N images of L patches with C channels:

- time grows with N^2 L^2 C (for volumes with N slices, with N * scans * slices compared * L^2 C);
- memory grows with N only by the scores themselves (N L numbers); beside these there is a block of images,
  its distances to every scan (:data:`BLOCK_BYTES` each at most, or one image's), and a single image of the
  others at a time, which ``read`` takes from wherever it lies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_BYTES = 64 << 20
"""Of the largest tensor that is made for a block of images."""
BEYOND = 1.5
"""How much farther from the typical patch than a normal image's highest one the conspicuous begins. Chosen on
three classes of MVTec AD."""
LEAST_LIMIT = 0.01  # distances below are of rounding
RISE = math.log(10)  # between centre and limit, from 0.05 to 0.5


def normalise_layer(features: Tensor) -> Tensor:
    """Return features (B, C, h, w) with mean 0 and variance 1 over each image's channels and patches."""
    return F.layer_norm(features.float(), features.shape[1:])


def aggregate(features: Tensor, degree: int) -> Tensor:
    """Return patches that tell of their neighbourhood (LNAMD).

    Args:
        features: float32 (B, C, h, w), of :func:`normalise_layer`.
        degree: side of the neighbourhood in patches, odd. What lies outside of the image counts as 0.

    Returns:
        float32 (B, h * w, C), of length 1.
    """
    if degree > 1:
        features = F.avg_pool2d(features, degree, stride=1, padding=degree // 2)
    return F.normalize(features.flatten(2).transpose(1, 2), dim=2)


def nearest_distance(patches: Tensor, others: Tensor) -> Tensor:
    """Return the Euclidean distance of each patch to the nearest of others, all of length 1.

    Args:
        patches: float32 (B, L, C).
        others: float32 (M, C).

    Returns:
        float32 (B, L) in [0, 2].
    """
    similarity = (patches.flatten(0, 1) @ others.T).amax(1)
    return (2 - 2 * similarity).clamp_min(0).sqrt().view(patches.shape[:2])


def lowest_mean(distances: Tensor, share: float) -> Tensor:
    """Return the mean over the most similar scans.

    Args:
        distances: float32 (S, ...) to each of S scans, infinite to the own one.
        share: of the S - 1 others, rounded down, but at least one.
    """
    count = max(1, int((len(distances) - 1) * share))
    return distances.topk(count, dim=0, largest=False).values.mean(0)


def comparable(
    scans: Sequence[int], heights: Sequence[float] | None, *, window: float = 0.05, slices: int = 3
) -> list[list[int]]:
    """Return for each image the indices of those that it is compared with.

    Args:
        scans: which scan each image is of; images of the same scan are never compared.
        heights: relative heights of slices along their stack, from 0 to 1; None for images, all of which are
            compared.
        window: how much heights of slices may differ; the nearest slice of a scan counts in any case.
        slices: at most so many of each scan, the nearest.
    """
    members: dict[int, list[int]] = {}
    for index, scan in enumerate(scans):
        members.setdefault(scan, []).append(index)
    if heights is None:
        return [[i for i in range(len(scans)) if scans[i] != scan] for scan in scans]
    levels = torch.tensor(heights, dtype=torch.float64)
    chosen: list[list[int]] = [[] for _ in scans]
    for scan, indices in members.items():
        ranked = (levels[:, None] - levels[indices]).abs().sort(dim=1, stable=True)
        gaps, order = (part[:, :slices].tolist() for part in ranked)
        for index, own in enumerate(scans):
            if own != scan:
                near = zip(gaps[index], order[index], strict=True)
                chosen[index] += [
                    indices[at] for rank, (gap, at) in enumerate(near) if rank == 0 or gap <= window
                ]
    return chosen


def mutual_scores(
    read: Callable[[int], Tensor],
    scans: Sequence[int],
    others: Sequence[Sequence[int]],
    order: Sequence[int],
    *,
    degrees: Sequence[int] = (1, 3, 5),
    share: float = 0.3,
    device: torch.device | str = "cpu",
    progress: Callable[..., Iterable[Any]] | None = None,
) -> Tensor:
    """Return one layer's scores of all patches, the mean over degrees (MSM).

    Each patch gets from every other scan the distance of its nearest patch; its score is the mean of the
    lowest of these.

    Args:
        read: gives an image's features, (C, h, w), of :func:`normalise_layer`, in any precision.
        scans: which scan each image is of, from 0.
        others: which images each is compared with, see :func:`comparable`: of every other scan at least one.
        order: in which images are taken; those compared with the same others should be neighbours.
        degrees: of :func:`aggregate`.
        share: of :func:`lowest_mean`.
        device: that computes.
        progress: wraps the blocks, and gets their ``total``.

    Returns:
        float32 (N, h, w), on the CPU.
    """
    channels, rows, columns = read(order[0]).shape
    patches, count = rows * columns, max(scans) + 1
    largest = 4 * len(degrees) * patches * max(patches / len(degrees), channels, count)
    size = max(1, int(BLOCK_BYTES // largest))
    blocks = [list(order[start : start + size]) for start in range(0, len(order), size)]
    scores = torch.empty(len(scans), rows, columns)

    def patches_of(indices: Sequence[int]) -> list[Tensor]:
        features = torch.stack([read(index) for index in indices]).to(device, torch.float32)
        return [aggregate(features, degree) for degree in degrees]

    for block in progress(blocks, total=len(blocks)) if progress else blocks:
        own = patches_of(block)
        distances = torch.full((len(degrees), count, len(block), patches), torch.inf, device=device)
        asking: dict[int, list[int]] = {}  # which of the block are compared with an image
        for position, index in enumerate(block):
            for other in others[index]:
                asking.setdefault(other, []).append(position)
        for other, positions in sorted(asking.items()):
            whole = len(positions) == len(block)
            for number, (mine, theirs) in enumerate(zip(own, patches_of([other]), strict=True)):
                found = nearest_distance(mine if whole else mine[positions], theirs[0])
                best = distances[number, scans[other]]
                best[positions] = torch.minimum(best[positions], found)
        mean = torch.stack([lowest_mean(each, share) for each in distances]).mean(0)
        scores[block] = mean.view(-1, rows, columns).cpu()
    return scores


def rescore(scores: Tensor, images: Tensor, neighbours: Sequence[int] = (1, 2, 3)) -> Tensor:
    """Return image scores that agree with those of similar images (RsCIN).

    Args:
        scores: float32 (N,).
        images: float32 (N, D), a feature of each image as a whole.
        neighbours: numbers of the most similar images, itself among them, whose scores are averaged with
            their similarities as weights; the mean over these numbers.

    Returns:
        float32 (N,). The authors first bring scores to [0, 1]; weights add up to 1, so that this changes
        nothing but the scale.
    """
    images = F.normalize(images.float(), dim=1)
    similarity = (images @ images.T).clamp_min(0)
    means = []
    for count in neighbours:
        weights, indices = similarity.topk(min(count, len(scores)), dim=1)
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
        means.append((weights * scores[indices]).sum(1))
    return torch.stack(means).mean(0)


def centre_and_limit(patches: Tensor, highest: Tensor) -> tuple[float, float]:
    """Return what a cohort's own scores say is typical, and where the conspicuous begins.

    Args:
        patches: float32 (M,), scores of patches, most of which are typical.
        highest: float32 (N,), the highest of each image, of which a quarter is taken for normal.

    Returns:
        The median of patches, and what is :data:`BEYOND` times as far above it as the lower quartile of
        images' highest scores, at least :data:`LEAST_LIMIT`.
    """
    centre = float(patches.median())
    normal = float(torch.quantile(highest, 0.25))
    return centre, centre + max(BEYOND * (normal - centre), LEAST_LIMIT)


def calibrated(scores: Tensor, centre: Tensor, limit: Tensor) -> Tensor:
    """Return scores as values in (0, 1): 0.05 at the centre, 0.5 at the limit.

    They rise with the scores without end, above the limit slowly (as 1 - 1/x): the most conspicuous can be
    told apart.
    """
    beyond = RISE * ((scores - centre) / (limit - centre) - 1)
    return torch.where(beyond < 0, 0.5 * beyond.clamp_max(0).exp(), 1 - 0.5 / (1 + beyond.clamp_min(0)))
