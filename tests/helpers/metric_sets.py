"""Small sets of maps and masks, and the metrics by plain loops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage


@dataclass(frozen=True)
class ImageSet:
    """Maps float32 (N, H, W) in [0, 1] and masks bool (N, H, W)."""

    maps: np.ndarray
    masks: np.ndarray


def make_set(images: int = 12, size: int = 40, seed: int = 0, strength: float = 2.0) -> ImageSet:
    """Smooth maps, brighter over square regions; every third image is normal."""
    rng = np.random.default_rng(seed)
    maps = ndimage.gaussian_filter(rng.standard_normal((images, size, size)), (0, 3, 3)) * 6
    masks = np.zeros((images, size, size), bool)
    for i in range(images):
        for _ in range(rng.integers(1, 4) if i % 3 else 0):
            y, x = rng.integers(0, size - 8, 2)
            height, width = rng.integers(1, 8, 2)
            masks[i, y : y + height, x : x + width] = True
    return ImageSet((1 / (1 + np.exp(2 - maps - strength * masks))).astype(np.float32), masks)


@st.composite
def tied_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with heavy ties and labels of both classes; sometimes hardly any of one."""
    size = draw(st.integers(2, 60))
    levels = draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, levels, size) / 12).astype(draw(st.sampled_from([np.float32, np.float64])))
    labels = rng.random(size) < draw(st.sampled_from([0.05, 0.5, 0.95]))
    labels[:2] = (True, False)
    return scores, labels


def plain_aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """AUPRO by a loop over every threshold and every region."""
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
        regions += [scores[labels == number] for number in range(1, count + 1)]
    normal = np.concatenate([scores[~mask] for scores, mask in zip(maps, masks, strict=True)])
    fprs, pros = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([scores.ravel() for scores in maps]))[::-1]:
        fprs.append(float((normal >= threshold).mean()))
        pros.append(float(np.mean([(region >= threshold).mean() for region in regions])))
    x, y = np.array(fprs), np.array(pros)
    last = int(np.searchsorted(x, limit, side="right"))
    if last < len(x):
        end = y[last - 1] + (limit - x[last - 1]) * (y[last] - y[last - 1]) / (x[last] - x[last - 1])
        x, y = np.r_[x[:last], limit], np.r_[y[:last], end]
    return float(np.trapezoid(y, x) / limit)
