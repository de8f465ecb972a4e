"""Anomaly maps as transforms of MONAI's dictionaries."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medzsad.datasets.images import read_label
from medzsad.detectors.base import AnomalyDetector
from medzsad.monai.inferer import anomaly_map, channels_of
from medzsad.results.prediction import given_modality, prediction_from
from medzsad.scans.readers import read_scan


class AnomalyMapd(MapTransform):
    """Adds the anomaly map of an image: ``image`` gets ``image_anomaly`` beside it.

    Comes after ``LoadImaged`` and ``EnsureChannelFirstd``, with MONAI's readers or
    :class:`medzsad.monai.MedzsadReader`; intensities are best left as they were read, for the detector's
    scaling is part of it. The map is a float32 ``MetaTensor`` (1, X, Y, Z), or (1, X, Y), in [0, 1], with the
    image's affine, device and history, so that ``Invertd(..., orig_keys="image")`` and ``SaveImaged`` follow.
    Its meta holds ``score`` (of the volume, in [0, 1]), ``threshold`` and, as JSON, the rest of the
    prediction. The image's meta gets the same, for ``Invertd`` gives the map that one.

    Args:
        keys: of the images. Several contrasts in one image: see :class:`AnomalyInferer`.
        detector: a detector, or a name for :func:`medzsad.load_detector`, which is loaded when it is first
            needed, in each worker of a ``DataLoader`` anew.
        plane, window, threshold, roi, max_candidates, min_volume, all_candidates, volume_rules, slice_step,
            first_pass, modality, batch_size: of :func:`medzsad.predict`.
        device: for a name: ``"auto"`` is the fastest, but the CPU in workers, which cannot share a GPU.
        load_options: for a name: further options of :func:`medzsad.load_detector`, such as ``precision``.
        postfix: what is added to the key, after an underscore.
        allow_missing_keys: leave items alone that lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        detector: str | os.PathLike[str] | AnomalyDetector = "medzsad-mini",
        *,
        plane: str = "auto",
        window: str | None = None,
        threshold: float | str | None = None,
        roi: str | None = None,
        max_candidates: int | None = None,
        min_volume: float | None = None,
        all_candidates: bool = False,
        volume_rules: str = "auto",
        slice_step: float | str | None = None,
        first_pass: int | None = None,
        modality: str | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        load_options: Mapping[str, Any] | None = None,
        postfix: str = "anomaly",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.detector = detector
        self.options: dict[str, Any] = {
            "plane": plane,
            "window": window,
            "threshold": threshold,
            "roi": roi,
            "max_candidates": max_candidates,
            "min_volume": min_volume,
            "all_candidates": all_candidates,
            "volume_rules": volume_rules,
            "slice_step": slice_step,
            "first_pass": first_pass,
            "modality": modality,
            "batch_size": batch_size,
        }
        self.device = device
        self.load_options = dict(load_options or {})
        self.postfix = postfix
        self._loaded: AnomalyDetector | None = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with the maps.

        Raises:
            BadInput: if an image cannot be looked at, see :func:`medzsad.read_scan`.
            ModelNotReady: if the detector cannot be loaded.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            if not isinstance(image, torch.Tensor):
                image = MetaTensor(image)
            result = anomaly_map(image, self._ready(), **self.options)
            item[f"{key}_{self.postfix}"] = result
            if isinstance(image, MetaTensor):
                said = {name: result.meta[name] for name in result.meta if name not in image.meta}
                history = image.applied_operations
                item[key] = MetaTensor(image.as_tensor(), meta=image.meta | said, applied_operations=history)
        return item

    def _ready(self) -> AnomalyDetector:
        if isinstance(self.detector, AnomalyDetector):
            return self.detector
        if self._loaded is None:
            from medzsad.zoo.loading import load_detector

            in_worker = torch.utils.data.get_worker_info() is not None
            device = "cpu" if in_worker and self.device == "auto" else self.device
            self._loaded = load_detector(self.detector, device=device, **self.load_options)
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}


class SavePredictiond(MapTransform):
    """Writes a scan's results as ``medzsad predict`` does: map, mask, picture and report (docs/outputs.md).

    All it writes is the item's: the image, its map as :class:`AnomalyInferer` or :class:`AnomalyMapd` gave it
    (or changed since, on the same grid), and the prediction's facts in the map's meta.

    Args:
        keys: of the maps, (1, X, Y, Z) or (1, X, Y).
        output_dir: the results' folder.
        image_key: of the image that was predicted.
        name_key: of what the results are called; without it, the image's file names them.
        formats: see :meth:`ScanPrediction.save`; DICOM results need ``medzsad.predict``.
        inferer: once the source of what was saved; nothing is done with it.
        allow_missing_keys: leave items alone that lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        *,
        output_dir: str | os.PathLike[str],
        image_key: str = "image",
        name_key: str = "name",
        formats: Iterable[str] = ("nifti", "json"),
        inferer: Any = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.image_key = image_key
        self.name_key = name_key
        self.formats = tuple(formats)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the results of one item, and return it as it is.

        Raises:
            KeyError: if the item has no image.
            ValueError: if the map's meta names no prediction, or map and image are not on one grid.
            OutputNotWritable: if a file cannot be written.
        """
        for key in self.key_iterator(dict(data)):
            result, image = data[key], data[self.image_key]
            modality = given_modality(getattr(result, "meta", {}))
            name = data.get(self.name_key)
            scan = read_scan(channels_of(image, modality)[0], modality=modality, name=name)
            voxels = np.asarray(result[0].detach().cpu(), dtype=np.float32)
            voxels = voxels if voxels.ndim == 3 else voxels[..., None]
            prediction_from(scan, voxels, result.meta).save(self.output_dir, formats=self.formats)
        return dict(data)


class LoadLabeld(MapTransform):
    """Reads label volumes: paths to uint8 ``MetaTensor`` (1, X, Y, Z), 1 where anything is labelled.

    Args:
        keys: of the paths.
        image_key: of the scan whose grid they must be on, loaded before.
    """

    def __init__(self, keys: KeysCollection = "label", *, image_key: str = "image") -> None:
        super().__init__(keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with the labels read.

        Raises:
            BadInput: if a label cannot be read or is on another grid.
        """
        item, image = dict(data), data[self.image_key]
        for key in self.key_iterator(item):
            label = read_label(Path(item[key]), Path(image.meta["filename_or_obj"]), None)
            item[key] = MetaTensor(torch.from_numpy(label[None].astype(np.uint8)), affine=image.affine)
        return item
