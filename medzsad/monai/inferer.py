"""Anomaly detection as MONAI knows inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import collate_meta_tensor, decollate_batch
from monai.inferers import Inferer
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector
from medzsad.monai.maps import anomaly_map


class AnomalyInferer(Inferer):
    """Runs a detector over a batch of volumes or images, from intensities as stored to maps on their grids.

    Each item is predicted as :func:`medzsad.predict` does: slices of the plane that its affine says, windows
    or percentiles of its own, the map back on its voxels. All orientations of a volume give the same map in
    the patient. Works in ``SupervisedEvaluator``; a device and a precision are the detector's own affair.

    Args:
        plane, window, threshold, roi, max_candidates, min_volume, all_candidates, volume_rules, modality:
            of :func:`medzsad.predict`.
        batch_size: slices at once; chosen by default.
    """

    def __init__(
        self,
        *,
        plane: str = "auto",
        window: str | None = None,
        threshold: float | str | None = None,
        roi: str | None = None,
        max_candidates: int | None = None,
        min_volume: float | None = None,
        all_candidates: bool = False,
        volume_rules: str = "auto",
        modality: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "plane": plane,
            "window": window,
            "threshold": threshold,
            "roi": roi,
            "max_candidates": max_candidates,
            "min_volume": min_volume,
            "all_candidates": all_candidates,
            "volume_rules": volume_rules,
            "modality": modality,
            "batch_size": batch_size,
        }

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> MetaTensor:
        """Predict.

        Args:
            inputs: (B, C, X, Y, Z) or (B, C, X, Y), any real type and device. Of a ``MetaTensor`` affine and
                meta are each item's own, where they were batched, or one for all. A plain tensor is taken to
                have voxels of 1 mm along right, anterior and superior. C is 1, or 3 of colours; each of
                several contrasts (T1, T2, ...) is predicted alone, and map and scores are their means.
            network: the detector (``medzsad.load_detector``), also within ``DistributedDataParallel``.
            args, kwargs: what MONAI hands over; nothing is done with it.

        Returns:
            float32 (B, 1, *spatial) in [0, 1] on the inputs' device, with their affine. In the meta, for each
            item: ``score``, ``threshold``, and for :class:`SavePredictiond` all else of the prediction.

        Raises:
            TypeError: if ``network`` is no detector.
            ValueError: if ``inputs`` have no batch and channels.
            BadInput: if an item cannot be looked at, see :func:`medzsad.read_scan`.
        """
        detector = getattr(network, "module", network)
        if not isinstance(detector, AnomalyDetector):
            raise TypeError(
                f"network must be a detector of medzsad.load_detector, not {type(detector).__name__}"
            )
        if inputs.ndim not in (4, 5):
            raise ValueError(f"expected (B, C, X, Y, Z) or (B, C, X, Y), got {tuple(inputs.shape)}")
        maps = [anomaly_map(item, detector, **self.options) for item in _items(inputs)]
        if _is_collated(inputs):
            return collate_meta_tensor(maps)
        per_item = [key for key in maps[0].meta if key not in ("affine", "space")]
        return MetaTensor(
            torch.stack([one.as_tensor() for one in maps]),
            affine=inputs.affine if isinstance(inputs, MetaTensor) else maps[0].affine,
            meta={key: [one.meta[key] for one in maps] for key in per_item},
        )


def _is_collated(inputs: Tensor) -> bool:
    """Whether affine and meta hold one entry for each item, as ``monai.data.DataLoader`` makes it."""
    return isinstance(inputs, MetaTensor) and inputs.is_batch and inputs.affine.ndim == 3


def _items(inputs: Tensor) -> list[Tensor]:
    if _is_collated(inputs):
        return decollate_batch(inputs)
    if not isinstance(inputs, MetaTensor):
        return list(inputs)
    affine, meta = inputs.affine, {key: value for key, value in inputs.meta.items() if key != "affine"}
    return [
        MetaTensor(item, affine=affine[index] if affine.ndim == 3 else affine, meta=dict(meta))
        for index, item in enumerate(inputs.as_tensor())
    ]
