"""From AdaCLIP's features to scores and maps: pure functions of tensors, float32 even under autocast.

Between the two stands hybrid semantic fusion (HSF; Cao et al., ECCV 2024): a feature of an image's suspicious
parts. Both variants average patch features over the layers and group the patches with k-means; the grouping
is taken as given, gradients flow through the averages.

- ``"code"``: what the published implementation computes. The ``5 * clusters`` patches with the highest
  anomaly probability are grouped by their features of all layers side by side; the result is the mean of the
  clusters' centroids.
- ``"paper"``: what the paper describes, as we read it (the published implementation says that its own fusion
  differs slightly from the reported one). All patches are grouped by their features averaged over the layers;
  the result is the centroid of the one cluster with the highest mean anomaly probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.scoring import abnormality, gaussian_smooth, upsample
from medzsad.scans.library_warnings import hushed


class Encoded(NamedTuple):
    """Features of a batch of images, all float32 and L2-normalised over D.

    Attributes:
        text: (B, D, 2), index 0 normal, 1 abnormal; the same for all images unless made from them.
        image: (B, D), of the class token.
        patches: per output layer, (B, P, D).
        grid: rows and columns of the P patches.
    """

    text: Tensor
    image: Tensor
    patches: dict[int, Tensor]
    grid: tuple[int, int]


class AdaCLIPComparison(NamedTuple):
    """How alike a batch of images is to "normal" (index 0) and "abnormal" (index 1); losses start here.

    Attributes:
        image_logits: float32 (B, 2), of the image feature fused with suspicious patches.
        class_logits: float32 (B, 2), of the class token alone.
        patch_logits: per output layer, float32 (B, 2, rows, columns).
    """

    image_logits: Tensor
    class_logits: Tensor
    patch_logits: dict[int, Tensor]


def compare_features(encoded: Encoded, config: AdaCLIPSettings) -> AdaCLIPComparison:
    """Cosine similarities times ``config.logit_scale``, with and without ``config.fusion``."""
    with torch.autocast(encoded.image.device.type, enabled=False):
        text = config.logit_scale * encoded.text
        patch_logits = {layer: features @ text for layer, features in encoded.patches.items()}
        class_logits = image_logits = (encoded.image[:, None] @ text)[:, 0]
        if config.fusion != "off":
            fused = fuse_patches(
                torch.stack(list(encoded.patches.values()), 1),
                torch.stack(list(patch_logits.values())).mean(0).softmax(-1)[..., 1],
                variant=config.fusion,
                clusters=config.clusters,
                seed=config.seed,
            )
            weight = config.fusion_weight
            image = F.normalize(weight * fused + (1 - weight) * encoded.image, dim=-1)
            image_logits = (image[:, None] @ text)[:, 0]
    maps = {n: logits.transpose(1, 2).unflatten(2, encoded.grid) for n, logits in patch_logits.items()}
    return AdaCLIPComparison(image_logits, class_logits, maps)


def layer_probability_maps(comparison: AdaCLIPComparison, size: Sequence[int]) -> dict[int, Tensor]:
    """Return the published aggregation for training: every layer by itself.

    Returns:
        Per output layer, float32 (B, 2, *size) that sums to 1 over normal and abnormal.
    """
    return {
        layer: upsample(logits, size, align_corners=True).softmax(1)
        for layer, logits in comparison.patch_logits.items()
    }


def aggregated_map(comparison: AdaCLIPComparison, size: Sequence[int], *, sigma: float = 0.0) -> Tensor:
    """Return the published aggregation for predicting.

    Mean logits of the layers, enlarged, softmax, smoothed.

    Args:
        comparison: of images with texts.
        size: height and width of the map.
        sigma: of the Gaussian smoothing, in pixels of the map.

    Returns:
        float32 (B, *size) in [0, 1].
    """
    logits = torch.stack(list(comparison.patch_logits.values())).mean(0)
    return gaussian_smooth(abnormality(upsample(logits, size, align_corners=True).softmax(1)), sigma)


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

    kmeans = KMeans(n_clusters=min(clusters, len(features)), n_init="auto", random_state=seed)
    with hushed():  # ConvergenceWarning: fewer different patches than clusters
        labels = kmeans.fit_predict(features.detach().float().cpu().numpy())
    members = F.one_hot(torch.as_tensor(labels, dtype=torch.long)).float().T
    members = members[members.any(1)]
    return (members / members.sum(1, keepdim=True)).to(features.device)
