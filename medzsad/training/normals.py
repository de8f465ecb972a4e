"""From a handful of normal scans to their profile, which is a detector: ``medzsad normals fit``.

Nothing is trained. Scans go through :func:`medzsad.predict` as any others do, so that a profile is made of
what the detector is shown later.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.features.base import PatchFeatures
from medzsad.detectors.normals.model import NormalsDetector, distances, image_distance
from medzsad.detectors.normals.profile import LayerProfile, fit_layer
from medzsad.errors import BadInput
from medzsad.predicting import predict
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Scan
from medzsad.zoo.loading import load_features

AUGMENTATIONS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "none": (lambda images: images,),
    "flip": (lambda images: images, lambda images: images.flip(3)),
    "rotations": tuple(lambda images, turns=turns: images.rot90(turns, (2, 3)) for turns in range(4)),
}
"""Views of each normal image: as it is; mirrored left to right; turned by quarters."""
MOST_PATCHES = 40_000  # kept of each layer, scan and view
HELD_IMAGES = 16  # of each left-out scan, whose whole maps set the limits
HELD_UNITS = 4
PIXEL_QUANTILE = 0.999

logger = logging.getLogger(__name__)


def fit_normals(
    scans: Iterable[Scan | str | os.PathLike[str] | Any],
    *,
    features: str = "lite0",
    image_size: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    augmentation: str = "flip",
    plane: str = "auto",
    window: str | None = None,
    modality: str | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[..., Any] | None = None,
) -> NormalsDetector:
    """Make the profile of normal scans.

    Args:
        scans: one normal image or volume, or more, each as :func:`medzsad.predict` takes it; of volumes all
            slices count.
        features: the frozen backbone, see :func:`~medzsad.zoo.loading.load_features`.
        image_size: side of its input in pixels; None for its own.
        weights: a local file of its weights, instead of those in the cache or the package.
        augmentation: ``"none"``, ``"flip"`` or ``"rotations"``, of what has no upright position.
        plane, window, modality: for :func:`medzsad.predict`.
        device: as for :func:`medzsad.load_detector`.
        seed: of the patches that are drawn.
        progress: wraps the scans, e.g. ``tqdm.tqdm``.

    Returns:
        The detector; :func:`~medzsad.detectors.checkpoint.save_checkpoint` stores its ``to_checkpoint()``.

    Raises:
        BadInput: no scans, scans that cannot be read or of several modalities, or an unknown augmentation.
        ModelNotReady: the features are not at hand.
    """
    from medzsad.detectors.devices import resolve_device

    if augmentation not in AUGMENTATIONS:
        raise BadInput(f"unknown augmentation {augmentation!r}; use one of {', '.join(AUGMENTATIONS)}")
    scans = list(scans)
    if not scans:
        raise BadInput("no normal scans: give one image or volume, or a folder of them")
    backbone = load_features(features, image_size=image_size, weights=weights).to(resolve_device(device))
    views = AUGMENTATIONS[augmentation]
    if len(scans) == 1 and len(views) == 1:
        views = AUGMENTATIONS["flip"]  # without a second view nothing can be left out
    collector = _Collector(backbone, views, torch.Generator().manual_seed(seed), alone=len(scans) == 1)
    modalities: dict[str, None] = {}
    digests = []
    for item in progress(scans) if progress else scans:
        scan = item if isinstance(item, Scan) else read_scan(item, modality=modality)
        modalities[str(scan.modality)] = None
        collector.start()
        predict(scan, collector, plane=plane, window=window, volume_rules="off")
        digests.append(hashlib.sha256(scan.voxels.tobytes()).hexdigest()[:16])
    if len(modalities) > 1:
        raise BadInput(
            f"normal scans of several modalities ({', '.join(modalities)}); make a profile of each"
        )
    profiles, without = collector.fit(seed)
    detector = NormalsDetector(
        backbone,
        profiles,
        limits=collector.limits(without),
        record={
            "data": f"{len(scans)} normal scans, {collector.images} images",
            "scans": len(scans),
            "images": collector.images,
            "modalities": list(modalities),
            "digests": sorted(digests),
            "digest": hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:16],
            "augmentation": augmentation,
            "plane": plane,
            "window": window,
            "seed": seed,
        },
    )
    return detector.eval().requires_grad_(False)


class _Collector(AnomalyDetector):
    """Takes part in a prediction to see what a detector is shown, and keeps the features of it.

    Args:
        features: the backbone.
        views: of each image.
        draw: of the patches that are kept.
        alone: of a single scan, whose views are left out in turn.
    """

    method = "normals"

    def __init__(
        self,
        features: PatchFeatures,
        views: Sequence[Callable[[Tensor], Tensor]],
        draw: torch.Generator,
        *,
        alone: bool,
    ) -> None:
        super().__init__(image_size=features.image_size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.features, self.views, self.draw, self.alone = features, views, draw, alone
        self.units: list[list[list[Tensor]]] = []  # unit, layer, patches of each batch
        self.shown: list[list[list[Tensor]]] = []  # unit, batch, whole features of each layer
        self.images = 0

    def start(self) -> None:
        """Begin a scan."""
        self.first = len(self.units)

    def detect(self, inputs: Tensor) -> Prediction:
        self.images += len(inputs)
        for number, view in enumerate(self.views):
            unit = self.first + (number if self.alone else 0)
            while len(self.units) <= unit:
                self.units.append([])
                self.shown.append([])
            self._keep(unit, self.features(view(inputs)), whole=self.alone or number == 0)
        zeros = inputs.new_zeros(len(inputs))
        return Prediction(inputs[:, 0] * 0, zeros, zeros)

    def _keep(self, unit: int, found: list[Tensor], *, whole: bool) -> None:
        layers = self.units[unit]
        for index, features in enumerate(found):
            if index == len(layers):
                layers.append([])
            patches = features.permute(0, 2, 3, 1).flatten(0, 2).cpu()
            if len(patches) > MOST_PATCHES // 4:
                patches = patches[torch.randperm(len(patches), generator=self.draw)[: MOST_PATCHES // 4]]
            layers[index].append(patches)
            if sum(map(len, layers[index])) > 2 * MOST_PATCHES:
                layers[index] = [self._thinned(layers[index])]
        seen = sum(len(batch[0]) for batch in self.shown[unit])
        if whole and len(self.shown) <= 2 * HELD_UNITS and seen < HELD_IMAGES:
            self.shown[unit].append([features[: HELD_IMAGES - seen].cpu() for features in found])

    def _thinned(self, batches: list[Tensor]) -> Tensor:
        patches = torch.cat(batches)
        return patches[torch.randperm(len(patches), generator=self.draw)[:MOST_PATCHES]]

    def fit(self, seed: int) -> tuple[list[LayerProfile], list[dict[int, LayerProfile]]]:
        """Return each layer's profile, and the same without single units."""
        fitted = []
        for layer in range(len(self.units[0])):
            units = [self._thinned(unit[layer]) for unit in self.units]
            fitted.append(fit_layer(units, seed=seed))
        return [whole for whole, _ in fitted], [without for _, without in fitted]

    def limits(self, without: Sequence[dict[int, LayerProfile]]) -> tuple[float, float]:
        """Return the highest distances of images that were left out: of a pixel, and of an image."""
        pixels, images = [], []
        for unit in sorted(without[0]):
            layers = [left[unit] for left in without]
            for features in self.shown[unit] if unit < len(self.shown) else ():
                maps = distances(layers, features, self.image_size)
                pixels.append(maps.flatten()[:: max(1, maps.numel() // 200_000)])
                images.append(image_distance(maps))
        return float(torch.quantile(torch.cat(pixels), PIXEL_QUANTILE)), float(torch.cat(images).max())

    def to_checkpoint(self) -> Checkpoint:
        raise NotImplementedError

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> _Collector:
        raise NotImplementedError


def normal_inputs(folder: Path) -> list[Path]:
    """Return the scans in a folder, or the file itself.

    Raises:
        BadInput: if there are none.
    """
    from medzsad.scans.folders import walk

    if not folder.is_dir():
        return [folder]
    found = [path for _, files, _ in walk(folder) for path in sorted(files)]
    if not found:
        raise BadInput(f"{folder} holds no files; give a folder of normal images or volumes")
    return found
