"""Hybrid semantic fusion (HSF) of AdaCLIP (Cao et al., ECCV 2024): a feature of an image's suspicious parts.

Both variants average patch features over the layers and group the patches with k-means; the grouping is taken
as given, gradients flow through the averages.

- ``"code"``: what the published implementation computes. The ``5 * clusters`` patches with the highest
  anomaly probability are grouped by their features of all layers side by side; the result is the mean of the
  clusters' centroids.
- ``"paper"``: what the paper describes, as we read it (the published implementation says that its own fusion
  differs slightly from the reported one). All patches are grouped by their features averaged over the layers;
  the result is the centroid of the one cluster with the highest mean anomaly probability.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

PATCHES_PER_CLUSTER = 5


def fuse_patches(
    patches: Tensor, probabilities: Tensor, *, variant: str = "code", clusters: int = 20, seed: int = 0
) -> Tensor:
    """Semantic feature of each image, independent of the others in the batch.

    Args:
        patches: float32 (B, layers, P, D), L2-normalised patch features.
        probabilities: float32 (B, P), each patch's probability of "abnormal".
        variant: ``"code"`` or ``"paper"``, see the module.
        clusters: wanted number of clusters; never more than there are (different) patches.
        seed: of k-means' start.

    Returns:
        float32 (B, D), L2-normalised.

    Raises:
        ValueError: on another variant.
    """
    if variant not in ("code", "paper"):
        raise ValueError(f"unknown fusion {variant!r}; use 'code' or 'paper'")
    fused = []
    for features, probability in zip(patches, probabilities, strict=True):
        if variant == "code":
            count = min(len(probability), PATCHES_PER_CLUSTER * clusters)
            chosen = features[:, probability.topk(count).indices]
            membership = group(chosen.transpose(0, 1).flatten(1), clusters, seed)
            # Of equal weight: the mean over a cluster's tokens of all layers is that of their averages.
            fused.append((membership @ chosen.mean(0)).mean(0))
        else:
            average = features.mean(0)
            membership = group(average, clusters, seed)
            fused.append(membership[(membership @ probability).argmax()] @ average)
    return F.normalize(torch.stack(fused), dim=-1)


def group(features: Tensor, clusters: int, seed: int) -> Tensor:
    """Group rows with k-means.

    Args:
        features: (N, F); no gradient flows through the grouping.
        clusters: wanted number of clusters.
        seed: of the start.

    Returns:
        float32 (K, N) with rows that average over one cluster each; K is at most ``clusters``, none is empty.
    """
    # Loading scikit-learn takes a while, and no one who only builds a detector needs it.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    kmeans = KMeans(n_clusters=min(clusters, len(features)), n_init="auto", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different patches than clusters
        labels = kmeans.fit_predict(features.detach().float().cpu().numpy())
    members = F.one_hot(torch.as_tensor(labels, dtype=torch.long)).float().T
    members = members[members.any(1)]
    return (members / members.sum(1, keepdim=True)).to(features.device)
