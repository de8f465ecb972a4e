"""Metrics of anomaly detection: arrays in, numbers out.

>>> from medzsad.metrics import image_metrics
>>> image_metrics([0.1, 0.9, 0.4], [0, 1, 0])["image_auroc"]
1.0

Exact by default (:func:`image_metrics`, :func:`pixel_metrics`, :func:`volume_metrics`), in bounded memory
with :class:`ScoreHistogram`, with intervals (:func:`image_intervals`, :func:`pixel_intervals`), and for MONAI
(:class:`ImageMetrics`, :class:`PixelMetrics`, :class:`VolumeMetrics`). docs/metrics.md has the definitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medzsad.metrics.bootstrap import Draws, Interval, image_intervals, intervals_of, mean_intervals
from medzsad.metrics.bounds import Bounded
from medzsad.metrics.curves import Curve, pr_curve, pro_curve, roc_curve
from medzsad.metrics.histogram import ScoreHistogram
from medzsad.metrics.image import (
    image_ap,
    image_auroc,
    image_f1_max,
    image_mad,
    image_metrics,
    rank_images,
)
from medzsad.metrics.lesionwise import (
    CaseFindings,
    Froc,
    LesionRule,
    find_lesions,
    froc_curve,
    lesion_metrics,
)
from medzsad.metrics.masks import as_mask
from medzsad.metrics.pixel import (
    aupro,
    best_dice,
    dice,
    pixel_ap,
    pixel_auroc,
    pixel_f1_max,
    pixel_mad,
    pixel_metrics,
    rank_pixels,
)
from medzsad.metrics.ranking import Ranking
from medzsad.metrics.resampling import PerImageCounts, pixel_intervals
from medzsad.metrics.undefined import Undefined, UndefinedMetric
from medzsad.metrics.volume import case_metrics, volume_metrics

if TYPE_CHECKING:
    from medzsad.metrics.cumulative import ImageMetrics, PixelMetrics, VolumeMetrics

# The MONAI metrics alone need torch, which takes seconds to import.
_WITH_TORCH = ("ImageMetrics", "PixelMetrics", "VolumeMetrics")

__all__ = [
    "Bounded",
    "CaseFindings",
    "Curve",
    "Draws",
    "Froc",
    "ImageMetrics",
    "Interval",
    "LesionRule",
    "PerImageCounts",
    "PixelMetrics",
    "Ranking",
    "ScoreHistogram",
    "Undefined",
    "UndefinedMetric",
    "VolumeMetrics",
    "as_mask",
    "aupro",
    "best_dice",
    "case_metrics",
    "dice",
    "find_lesions",
    "froc_curve",
    "image_ap",
    "image_auroc",
    "image_f1_max",
    "image_intervals",
    "image_mad",
    "image_metrics",
    "intervals_of",
    "lesion_metrics",
    "mean_intervals",
    "pixel_ap",
    "pixel_auroc",
    "pixel_f1_max",
    "pixel_intervals",
    "pixel_mad",
    "pixel_metrics",
    "pr_curve",
    "pro_curve",
    "rank_images",
    "rank_pixels",
    "roc_curve",
    "volume_metrics",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module 'medzsad.metrics' has no attribute {name!r}")
    from medzsad.metrics import cumulative

    return getattr(cumulative, name)
