"""The parts that a MONAI config needs to run a detector: transforms, an inferer and a metric handler.

What is computed is :func:`medzsad.predict`, so that a config gives the numbers of ``medzsad predict``. The
config of an exported bundle (:mod:`medzsad.integrations.bundle`) shows how they fit together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler
from monai.inferers import Inferer
from monai.transforms import MapTransform

from medzsad.cohort import unique_names
from medzsad.datasets.opening import open_dataset
from medzsad.datasets.volume_files import read_label
from medzsad.detectors.base import AnomalyDetector
from medzsad.predicting import predict
from medzsad.results.prediction import ScanPrediction
from medzsad.results.thresholds import parse_threshold
from medzsad.scans.readers import find_scans, read_scan
from medzsad.scans.scan import Modality, Scan

FACTS = "medzsad"  # in a MetaTensor's meta: what a scan is besides voxels and affine, as JSON
_FIELDS = ("name", "modality_source", "is_2d", "has_geometry", "header", "notes", "details")


def scans_at(place: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[dict[str, str]]:
    """The scans of a file, a folder, or several of these: ``{"image": path, "name": name}`` of each.

    Names are those of the results of ``medzsad predict``; no two are the same.

    Raises:
        BadInput: there is no such place, or no scan in it.
    """
    places = [place] if isinstance(place, str | os.PathLike) else list(place)
    paths = list(dict.fromkeys(path for one in places for path in find_scans(Path(one))))
    return [{"image": str(p), "name": n} for p, n in zip(paths, unique_names(paths), strict=True)]


def labelled_scans_at(folder: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Volumes with label volumes, in a layout that ``medzsad datasets info volumes`` shows: ``image``,
    ``label`` and ``name`` of each.

    Raises:
        BadInput: if the folder has no such layout.
    """
    samples = open_dataset("volumes", folder)
    names = unique_names([sample.image for sample in samples])
    return [
        {"image": str(sample.image), "label": str(sample.label), "name": name}
        for sample, name in zip(samples, names, strict=True)
    ]


class LoadScand(MapTransform):
    """Reads scans with :func:`medzsad.read_scan`: paths to float32 ``MetaTensor`` (C, X, Y, Z) in the scan's
    own grid, with its affine (RAS+, mm).

    Args:
        keys: of the paths.
        modality, volume, series: for :func:`medzsad.read_scan`.
        allow_missing_keys: leave items alone that lack a key.
    """

    def __init__(
        self,
        keys: Any = "image",
        *,
        modality: str | None = None,
        volume: int | None = None,
        series: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.options = {"modality": modality, "volume": volume, "series": series}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """``data`` with its paths read; the results' names are ``data["name"]``, by default the files'."""
        read = dict(data)
        for key in self.key_iterator(read):
            scan = read_scan(read[key], **self.options)
            read[key] = to_metatensor(replace(scan, name=read.get("name", scan.name)))
        return read


class LoadLabeld(MapTransform):
    """Reads label volumes: paths to uint8 ``MetaTensor`` (1, X, Y, Z), 1 where anything is labelled.

    Args:
        keys: of the paths.
        image_key: of the scan whose grid they must be on, read by :class:`LoadScand` before.
    """

    def __init__(self, keys: Any = "label", *, image_key: str = "image") -> None:
        super().__init__(keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        read, image = dict(data), data[self.image_key]
        for key in self.key_iterator(read):
            label = read_label(Path(read[key]), Path(image.meta["filename_or_obj"]), None)
            read[key] = MetaTensor(torch.from_numpy(label[None].astype(np.uint8)), affine=image.affine)
        return read


class ScanInferer(Inferer):
    """Runs a detector over one scan, slice by slice
    (:class:`~medzsad.inference.slicewise.SliceWisePredictor`), from intensities as stored to the map in the
    scan's own grid.

    Args:
        plane, window, threshold, batch_size: of :func:`medzsad.predict`.

    Attributes:
        prediction: of the scan that was last predicted.
    """

    prediction: ScanPrediction

    def __init__(
        self,
        *,
        plane: str = "auto",
        window: str | None = None,
        threshold: float | str | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.options = {"plane": plane, "window": window, "threshold": threshold, "batch_size": batch_size}

    def __call__(self, inputs: MetaTensor, network: AnomalyDetector, *_: Any, **__: Any) -> MetaTensor:
        """Predicts.

        Args:
            inputs: (1, C, X, Y, Z), from :class:`LoadScand` and a ``DataLoader``: scans differ in size.
            network: the detector.

        Returns:
            float32 (1, 1, X, Y, Z) in [0, 1] on the CPU, with the scan's meta and its ``score``.

        Raises:
            ValueError: if ``inputs`` are not one scan with what :class:`LoadScand` notes of it.
        """
        if len(inputs) != 1 or FACTS not in getattr(inputs, "meta", {}):
            raise ValueError("expected a batch of one scan that LoadScand has read")
        self.prediction = predict(from_metatensor(inputs[0]), network, **self.options)
        maps = MetaTensor(torch.from_numpy(self.prediction.anomaly_map)[None, None], meta=dict(inputs.meta))
        maps.meta["score"] = [self.prediction.score]
        maps.is_batch = True
        return maps


class SavePredictiond(MapTransform):
    """Writes a scan's results as ``medzsad predict`` does: map, mask, picture and report (docs/outputs.md).

    Args:
        keys: of the map, (1, X, Y, Z), as the inferer gave it or changed since.
        inferer: the inferer that has just predicted the scan.
        output_dir: the results' folder.
        formats: see :meth:`ScanPrediction.save`.
    """

    def __init__(
        self,
        keys: Any = "pred",
        *,
        inferer: ScanInferer,
        output_dir: str | os.PathLike[str],
        formats: Iterable[str] = ("nifti", "json"),
    ) -> None:
        super().__init__(keys)
        self.inferer = inferer
        self.output_dir = Path(output_dir)
        self.formats = tuple(formats)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(dict(data)):
            anomaly_map = np.asarray(data[key][0].cpu(), dtype=np.float32)
            replace(self.inferer.prediction, anomaly_map=anomaly_map).save(
                self.output_dir, formats=self.formats
            )
        return dict(data)


class FiguresHandler(IgniteMetricHandler):
    """Puts all figures of a metric of :mod:`medzsad.metrics` into the engine's metrics, each by its name.

    The handler's own name must be one of them: ``key_val_metric: {case_ap: FiguresHandler(...)}``.
    """

    def compute(self) -> float:
        figures = super().compute()
        self._engine.state.metrics.update(figures)
        return figures[self._name]


def scores_and_labels(output: list[dict[str, Any]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of an evaluator's output, each scan's score (1,) and whether anything is labelled in it (1,)."""
    scores = [torch.tensor([one["pred"].meta["score"]], dtype=torch.float64) for one in output]
    return scores, [one["label"].any().reshape(1).as_tensor() for one in output]


def fixed_threshold(threshold: float | str | None, detector: AnomalyDetector) -> float | None:
    """The threshold of the map, by default the detector's own; None if it differs from scan to scan."""
    rule = parse_threshold(detector.threshold if threshold is None else threshold)
    return rule if isinstance(rule, float) else None


def to_metatensor(scan: Scan) -> MetaTensor:
    """A scan as ``MetaTensor`` (C, X, Y, Z), from which :func:`from_metatensor` makes the same scan again,
    but for its DICOM images."""
    image = scan.as_metatensor()
    facts = {field: getattr(scan, field) for field in _FIELDS} | {"modality": str(scan.modality)}
    # Sums over voxels depend on their order in memory, in the last digit.
    strides = np.abs(scan.voxels.strides)
    facts["order"] = sorted(range(scan.voxels.ndim), key=lambda axis: -strides[axis])
    image.meta[FACTS] = json.dumps(facts, default=lambda value: value.item())
    return image


def from_metatensor(image: MetaTensor) -> Scan:
    """The inverse of :func:`to_metatensor`."""
    facts = json.loads(image.meta[FACTS])
    order = facts.pop("order")
    channels = image.cpu().numpy()
    voxels = channels[0] if len(channels) == 1 else np.moveaxis(channels, 0, -1)
    return Scan(
        voxels=np.ascontiguousarray(voxels.transpose(order)).transpose(np.argsort(order)),
        affine=image.affine.cpu().numpy().astype(np.float64),
        source=Path(image.meta["filename_or_obj"]),
        **facts | {"modality": Modality(facts["modality"]), "notes": tuple(facts["notes"])},
    )
