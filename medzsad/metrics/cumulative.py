"""The metrics as MONAI ``CumulativeIterationMetric``: call them on batches, then ``aggregate()``.

All ranks of a distributed run are put together in ``aggregate()``: buffers by MONAI's own gathering,
histograms and lesions by gathering them once and adding them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from medzsad.metrics.histogram import ScoreHistogram
from medzsad.metrics.image import image_metrics
from medzsad.metrics.lesionwise import CaseFindings, LesionRule, find_lesions, lesion_metrics
from medzsad.metrics.masks import as_mask, match
from medzsad.metrics.pixel import pixel_metrics
from medzsad.metrics.undefined import Summary, Undefined
from medzsad.metrics.volume import case_metrics, cut_off, mean_over_cases, within


class _Reported(CumulativeIterationMetric):
    """Keeps the reasons of undefined results.

    Attributes:
        undefined: name and reason of each result of the last ``aggregate()`` that is NaN.
    """

    undefined: dict[str, str]

    def reset(self) -> None:
        """Forgets everything that was added."""
        super().reset()
        self.undefined = {}

    def _report(self, summary: dict[str, Any]) -> dict[str, float]:
        self.undefined = {name: v.reason for name, v in summary.items() if isinstance(v, Undefined)}
        return {name: float(value) for name, value in summary.items()}


class ImageMetrics(_Reported):
    """Image metrics over all batches: AUROC, AP, F1-max and mAD; see
    :func:`medzsad.metrics.image.image_metrics`.

    >>> metric = ImageMetrics()
    >>> _ = metric(torch.tensor([0.2, 0.9, 0.4]), torch.tensor([0, 1, 0]))
    >>> metric.aggregate()["image_auroc"]
    1.0

    Called with ``y_pred``, scores (B,) or (B, 1), and ``y``, labels of the same size or masks (B, 1, ...): an
    image is anomalous if anything of its mask is.
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        if y is None or len(y) != len(y_pred) or y_pred.numel() != len(y_pred):
            got = None if y is None else tuple(y.shape)
            raise ValueError(
                f"need a score and a label per image, got shapes {tuple(y_pred.shape)} and {got}"
            )
        # Kept in double precision: float32 scores of other devices must not tie after a conversion.
        scores = y_pred.reshape(-1).double().cpu()
        labels = [as_mask(row).any() for row in _arrays(y.reshape(len(y), -1))]
        return [scores, torch.tensor(labels, dtype=torch.bool)]

    def aggregate(self) -> dict[str, float]:
        """Return the metrics of everything added, NaN where undefined.

        The reasons are in :attr:`undefined`.
        """
        buffer = self.get_buffer()
        scores, labels = (
            (np.empty(0), np.empty(0, bool)) if buffer is None else (b.cpu().numpy() for b in buffer)
        )
        return self._report(image_metrics(scores, labels))


class PixelMetrics(_Reported):
    """Pixel metrics over all batches; see :func:`medzsad.metrics.pixel.pixel_metrics`.

    Called with ``y_pred``, maps (B, 1, H, W) or (B, H, W), and ``y``, masks. Maps of another size than the
    masks are resized to them.

    Args:
        mode: "exact" keeps every pixel (5 bytes each, and about 14 more while it aggregates; all masks of one
            size); "histogram" keeps counts alone, whatever the number and sizes of images.
        fpr_limit: where AUPRO ends.
        threshold: also report Dice at this threshold.
        bins, limits: of the histogram; see :class:`~medzsad.metrics.histogram.ScoreHistogram`.

    Attributes:
        bounds: in mode "histogram", the bounds (lower, upper) of each result of the last ``aggregate()``.
    """

    def __init__(
        self,
        mode: Literal["exact", "histogram"] = "exact",
        *,
        fpr_limit: float = 0.3,
        threshold: float | None = None,
        bins: int = 65_536,
        limits: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        if mode not in ("exact", "histogram"):
            raise ValueError(f'mode must be "exact" or "histogram", got {mode!r}')
        self.mode = mode
        self.fpr_limit = fpr_limit
        self.threshold = threshold
        self.bins = bins
        self.limits = limits
        super().__init__()

    def reset(self) -> None:
        """Forgets everything that was added."""
        super().reset()
        self.bounds: dict[str, tuple[float, float]] = {}
        self._shape: tuple[int, ...] | None = None
        self.histogram = ScoreHistogram(self.bins, limits=self.limits, threshold=self.threshold)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Any:
        pairs = _pairs(y_pred, y)
        if self.mode == "histogram":
            for scores, mask in pairs:
                self.histogram.add(scores, mask)
            return torch.tensor([[int(mask.sum())] for _, mask in pairs])
        for _, mask in pairs:
            if self._shape not in (None, mask.shape):
                raise ValueError(
                    f'mode "exact" needs masks of one size, got {mask.shape} after {self._shape}: '
                    'use mode "histogram", or medzsad.metrics.pixel_metrics'
                )
            self._shape = mask.shape
        return [torch.from_numpy(np.stack(column)) for column in zip(*pairs, strict=True)]

    def aggregate(self) -> dict[str, float]:
        """Return the metrics of everything added, NaN where undefined.

        The reasons are in :attr:`undefined`.
        """
        if self.mode == "histogram":
            total = sum(_from_all_ranks(self.histogram))
            results = total.metrics(fpr_limit=self.fpr_limit)
            self.bounds = {
                name: (value.lower, value.upper)
                for name, value in results.items()
                if not isinstance(value, Undefined)
            }
            return self._report(results)
        buffer = self.get_buffer()
        maps, masks = ([], []) if buffer is None else (b.cpu().numpy() for b in buffer)
        return self._report(pixel_metrics(maps, masks, fpr_limit=self.fpr_limit, threshold=self.threshold))


class VolumeMetrics(_Reported):
    """Metrics of volumes: means over cases (exact), pooled voxels (histogram) and lesions.

    Called with ``y_pred``, maps (B, 1, D, H, W) or (B, D, H, W), ``y``, labels, and if wanted ``foreground``
    (one per case) and ``spacing`` (mm along each axis, of every case of the batch).

    Args:
        threshold: also report Dice at this threshold.
        lesions: also report lesion-wise metrics by this rule.
        bins, limits: of the histogram of pooled voxels; see
            :class:`~medzsad.metrics.histogram.ScoreHistogram`.

    Attributes:
        cases: the results of each case added on this rank.
        findings: what was found in each of them.
    """

    def __init__(
        self,
        *,
        threshold: float | None = None,
        lesions: LesionRule | None = None,
        bins: int = 65_536,
        limits: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.threshold = threshold
        self.lesions = lesions
        self.bins = bins
        self.limits = limits
        super().__init__()

    def reset(self) -> None:
        """Forgets everything that was added."""
        super().reset()
        self.cases: list[Summary] = []
        self.findings: list[CaseFindings] = []
        self.histogram = ScoreHistogram(
            self.bins, limits=self.limits, threshold=self.threshold, regions=False, unit="voxel"
        )

    def _compute_tensor(
        self,
        y_pred: Tensor,
        y: Tensor | None = None,
        *,
        foreground: Tensor | None = None,
        spacing: Sequence[float] | None = None,
        **_: Any,
    ) -> Tensor:
        pairs = _pairs(y_pred, y)
        areas = [None] * len(pairs) if foreground is None else _arrays(foreground)
        first = len(self.cases)
        for (scores, truth), area in zip(pairs, areas, strict=True):
            if area is not None:
                area = area.reshape(truth.shape)
            self.cases.append(case_metrics(scores, truth, threshold=self.threshold, foreground=area))
            self.histogram.add(*within(scores, truth, area))
            if self.lesions is not None:
                whole = cut_off(scores, truth, area)
                self.findings.append(find_lesions(whole, truth, self.lesions, spacing=spacing))
        return torch.tensor([[float(value) for value in case.values()] for case in self.cases[first:]])

    def aggregate(self) -> dict[str, float]:
        """Return the metrics of everything added, NaN where undefined.

        The reasons are in :attr:`undefined`.
        """
        cases = [case for part in _from_all_ranks(self.cases) for case in part]
        names = [
            name
            for name in ("auroc", "ap", "dice_best", "dice")
            if name != "dice" or self.threshold is not None
        ]
        summary: dict[str, Any] = {
            f"case_{name}": mean_over_cases([case[name] for case in cases]) for name in names
        }
        pooled = sum(_from_all_ranks(self.histogram)).metrics()
        # Over voxels, the highest F1 goes by the name of Dice alone, as in volume_metrics.
        for name in ("voxel_auroc", "voxel_ap", "dice_best", "dice_best_threshold", "dice"):
            if name in pooled:
                summary[f"voxel_{name.removeprefix('voxel_')}"] = pooled[name]
        if self.lesions is not None:
            summary |= lesion_metrics([one for part in _from_all_ranks(self.findings) for one in part])
        return self._report(summary)


def _pairs(y_pred: Tensor, y: Tensor | None) -> list[tuple[np.ndarray, np.ndarray]]:
    if y is None or len(y) != len(y_pred):
        got = None if y is None else tuple(y.shape)
        raise ValueError(f"need a mask per map, got shapes {tuple(y_pred.shape)} and {got}")
    return [match(*pair) for pair in zip(_arrays(y_pred), _arrays(y), strict=True)]


def _arrays(batch: Tensor) -> list[np.ndarray]:
    """Each item of a batch as an array, without its channel axis."""
    batch = batch.detach().cpu()
    # NumPy has no bfloat16.
    batch = batch.float() if batch.dtype == torch.bfloat16 else batch
    return [item[0] if item.ndim > 2 and len(item) == 1 else item for item in batch.numpy()]


def _from_all_ranks(mine: Any) -> list[Any]:
    """Return the object of every rank of a distributed run, or of this process alone."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [mine]
    parts = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return parts
