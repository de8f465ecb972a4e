"""From a handful of normal scans to their profile, which is a detector: ``medzsad normals fit``.

Nothing is trained. Scans go through :func:`medzsad.predict` as any others do, so that a profile is made of
what the detector is shown later.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from medzsad.datasets.images import read_image
from medzsad.datasets.samples import VolumeSample
from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.features.base import PatchFeatures
from medzsad.detectors.normals.model import NormalsDetector, distances, image_distance
from medzsad.detectors.normals.profile import LayerProfile, fit_layer, held_out
from medzsad.errors import BadInput
from medzsad.predicting import predict
from medzsad.scans.find import ScanPlace, locate_scans
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Scan
from medzsad.zoo.loading import load_features

AUGMENTATIONS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "none": (lambda images: images,),
    "flip": (lambda images: images, lambda images: images.flip(3)),
    "rotations": tuple(partial(torch.rot90, k=turns, dims=(2, 3)) for turns in range(4)),
}
"""Views of each normal image: as it is; mirrored left to right; turned by quarters."""
FRAMINGS = ("foreground", "whole")
MOST_PATCHES = 20_000  # kept of each layer and unit
HELD_IMAGES = 16  # of each left-out unit, whose whole maps set the limits
PIXEL_QUANTILE = 0.999

logger = logging.getLogger(__name__)

Normal = Scan | ScanPlace | VolumeSample | str | os.PathLike[str] | Any
"""What a normal scan is given as: where it lies, or what else :func:`medzsad.predict` takes."""


def fit_normals(
    scans: Iterable[Normal],
    *,
    features: str = "lite0",
    image_size: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    augmentation: str = "flip",
    framing: str = "foreground",
    plane: str = "auto",
    window: str | None = None,
    modality: str | None = None,
    any_modality: bool = False,
    height_weight: float = 0.0,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[..., Any] | None = None,
) -> NormalsDetector:
    """Make the profile of normal scans.

    Args:
        scans: one normal image or volume, or more; of volumes all slices count. One that is given twice
            counts once.
        features: the frozen backbone, see :func:`~medzsad.zoo.loading.load_features`.
        image_size: side of its input in pixels; None for its own.
        weights: a local file of its weights, instead of those in the cache or the package.
        augmentation: ``"none"``, ``"flip"`` or ``"rotations"``, of what has no upright position. A single
            scan is flipped, at least, for something must be left out to measure how far normal is.
        framing: ``"foreground"``, as ``predict`` shows scans, or ``"whole"``, of image files: resized to a
            square, as published evaluations show them.
        plane, window, modality: for :func:`medzsad.predict`.
        any_modality: take scans of several modalities.
        height_weight: what the relative height of a slice along its stack counts as beside its features: the
            whole height is so many standard deviations of the patches. 0 for nothing.
        device: as for :func:`medzsad.load_detector`.
        seed: of the patches that are drawn.
        progress: wraps the scans, e.g. ``tqdm.tqdm``.

    Returns:
        The detector; :func:`~medzsad.detectors.checkpoint.save_checkpoint` stores its ``to_checkpoint()``.

    Raises:
        BadInput: no scans, scans that cannot be read (all of them are named) or of several modalities, or an
            impossible setting.
        ModelNotReady: the features are not at hand.
    """
    from medzsad import __version__
    from medzsad.detectors.devices import resolve_device

    if augmentation not in AUGMENTATIONS:
        raise BadInput(f"unknown augmentation {augmentation!r}; use one of {', '.join(AUGMENTATIONS)}")
    if framing not in FRAMINGS:
        raise BadInput(f"unknown framing {framing!r}; use one of {', '.join(FRAMINGS)}")
    if not (math.isfinite(height_weight) and height_weight >= 0):
        raise BadInput(f"`height_weight` must be 0 or more, not {height_weight:g}")
    scans = list(scans)
    if not scans:
        raise BadInput("no normal scans: give one image or volume, or a folder of them")
    if len(scans) == 1 and augmentation == "none":
        augmentation = "flip"
    where = resolve_device(device)
    backbone = load_features(features, image_size=image_size, weights=weights)
    collector = _Collector(
        backbone,
        AUGMENTATIONS[augmentation],
        torch.Generator().manual_seed(seed),
        scans=len(scans),
        height_weight=height_weight,
    ).to(where)
    modalities: dict[str, None] = {}
    digests: dict[str, None] = {}
    faults: list[str] = []
    for item in progress(scans, total=len(scans)) if progress else scans:
        try:
            if framing == "whole":
                path = item.path if isinstance(item, ScanPlace) else Path(cast(str, item))
                pixels, name = read_image(path), str(path)
            else:
                scan = _read(item, modality)
                pixels, name = scan.voxels, scan.name
                modalities[str(scan.modality)] = None
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
            if digest in digests:
                logger.info("%s is a copy of another normal scan, and counts once", name)
                continue
            digests[digest] = None
            if faults:  # nothing will come of it; what else is wrong is still to be told
                continue
            if len(modalities) > 1 and not any_modality:
                raise BadInput(
                    f"{name}: normal scans of several modalities ({', '.join(modalities)}); make a profile "
                    "of each, or say by `modality` what they are"
                )
            collector.start()
            if framing == "whole":
                collector(torch.from_numpy(pixels)[None])
            else:
                predict(scan, collector, plane=plane, window=window, volume_rules="off")
        except BadInput as error:
            faults.append(str(error))
    if faults:
        raise BadInput("; ".join(faults))
    profiles, without = collector.fit(seed)
    detector = NormalsDetector(
        backbone,
        profiles,
        limits=collector.limits(without),
        record={
            "data": f"{len(digests)} normal scans, {collector.images} images",
            "scans": len(digests),
            "images": collector.images,
            "modalities": list(modalities),
            "digests": sorted(digests),
            "augmentation": augmentation,
            "framing": framing,
            "plane": plane,
            "window": window,
            "height_weight": height_weight,
            "seed": seed,
            "version": __version__,
        },
    )
    return detector.to(where).eval().requires_grad_(False)


def normal_places(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[ScanPlace], list[str]]:
    """Return where the normal scans lie in files and folders, each once, and notes on what is no scan.

    Raises:
        BadInput: see :func:`~medzsad.scans.find.locate_scans`.
    """
    places: dict[ScanPlace, None] = {}
    notes: list[str] = []
    for path in paths:
        found, said = locate_scans(Path(path))
        places |= dict.fromkeys(found)
        notes += said
    return list(places), notes


def _read(item: Normal, modality: str | None) -> Scan:
    if isinstance(item, Scan):
        return item
    if isinstance(item, VolumeSample):
        return item.read_scan()
    if isinstance(item, ScanPlace):
        return read_scan(item.path, series=item.series, modality=modality)
    return read_scan(item, modality=modality)


class _Reservoir:
    """Keeps some of the rows that it is given, each with the same chance.

    Args:
        size: how many rows to keep.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.batches: list[tuple[Tensor, Tensor]] = []

    def add(self, rows: Tensor, tickets: Tensor) -> None:
        """Take rows (N, ...) with a random number (N,) each; those with the lowest stay."""
        self.batches.append((rows, tickets))
        if sum(len(kept) for _, kept in self.batches) > 2 * self.size:
            self._thin()

    def rows(self) -> Tensor:
        """Return what is kept."""
        self._thin()
        return self.batches[0][0]

    def _thin(self) -> None:
        rows, tickets = (torch.cat(parts) for parts in zip(*self.batches, strict=True))
        lowest = tickets.argsort()[: self.size].sort().values
        self.batches = [(rows[lowest], tickets[lowest])]


class _Collector(AnomalyDetector):
    """Takes part in a prediction to see what a detector is shown, and keeps the features of it.

    What is left out at once, a unit, is a scan; or a view of it, where there is a single scan.

    Args:
        features: the backbone.
        views: of each image.
        draw: of what is kept.
        scans: how many there will be.
        height_weight: see :func:`fit_normals`.
    """

    method = "normals"

    def __init__(
        self,
        features: PatchFeatures,
        views: Sequence[Callable[[Tensor], Tensor]],
        draw: torch.Generator,
        *,
        scans: int,
        height_weight: float,
    ) -> None:
        super().__init__(image_size=features.image_size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.features, self.views, self.draw, self.height_weight = features, views, draw, height_weight
        self.uses_heights = height_weight > 0
        self.alone = scans == 1
        self.held = set(held_out(len(views) if self.alone else scans))
        self.patches: list[list[_Reservoir]] = []  # by unit and layer; the last column is the height
        self.shown: dict[int, list[_Reservoir]] = {}  # by unit that is left out: layers and heights of slices
        self.heights: Tensor | None = None
        self.images = 0
        self.first = 0

    def start(self) -> None:
        """Begin a scan."""
        self.first = len(self.patches)

    def at_heights(self, heights: Tensor) -> _Collector:
        """Note the relative heights (B,) of the slices that come next."""
        self.heights = heights
        return self

    def detect(self, inputs: Tensor) -> Prediction:
        self.images += len(inputs)
        heights = inputs.new_zeros(len(inputs)) if self.heights is None else self.heights
        for number, view in enumerate(self.views):
            unit = self.first + (number if self.alone else 0)
            layers = [tokens.cpu() for tokens in self.features(view(inputs))]
            self._keep_patches(unit, layers, heights.cpu())
            if unit in self.held and (self.alone or number == 0):
                self._keep_whole(unit, layers, heights.cpu())
        zeros = inputs.new_zeros(len(inputs))
        return Prediction(inputs[:, 0] * 0, zeros, zeros)

    def _keep_patches(self, unit: int, layers: list[Tensor], heights: Tensor) -> None:
        if unit == len(self.patches):
            self.patches.append([_Reservoir(MOST_PATCHES) for _ in layers])
        for reservoir, tokens in zip(self.patches[unit], layers, strict=True):
            _, channels, rows, columns = tokens.shape
            patches = tokens.permute(0, 2, 3, 1).reshape(-1, channels)
            patches = torch.cat([patches, heights.repeat_interleave(rows * columns)[:, None]], 1)
            reservoir.add(patches, torch.rand(len(patches), generator=self.draw))

    def _keep_whole(self, unit: int, layers: list[Tensor], heights: Tensor) -> None:
        tickets = torch.rand(len(heights), generator=self.draw)
        reservoirs = self.shown.setdefault(unit, [_Reservoir(HELD_IMAGES) for _ in (*layers, heights)])
        for reservoir, rows in zip(reservoirs, (*layers, heights), strict=True):
            reservoir.add(rows, tickets)

    def fit(self, seed: int) -> tuple[list[LayerProfile], list[dict[int, LayerProfile]]]:
        """Return each layer's profile, and the same without single units.

        Raises:
            BadInput: all scans were the same.
        """
        if len(self.patches) < 2:
            raise BadInput("all normal scans are copies of one; give it once, or others")
        fitted = []
        for layer in range(len(self.patches[0])):
            units = [unit[layer].rows() for unit in self.patches]
            fitted.append(
                fit_layer(
                    [unit[:, :-1] for unit in units],
                    heights=[unit[:, -1] for unit in units],
                    height_weight=self.height_weight,
                    held=sorted(self.shown),
                    seed=seed,
                )
            )
        return [whole for whole, _ in fitted], [without for _, without in fitted]

    def limits(self, without: Sequence[dict[int, LayerProfile]]) -> tuple[float, float]:
        """Return the highest distances of images that were left out: of a pixel, and of an image."""
        pixels, images = [], []
        for unit, reservoirs in sorted(self.shown.items()):
            *layers, heights = (reservoir.rows() for reservoir in reservoirs)
            maps = distances([left[unit] for left in without], layers, self.image_size, heights)
            pixels.append(maps.flatten()[:: max(1, maps.numel() // 200_000)])
            images.append(image_distance(maps))
        return float(torch.quantile(torch.cat(pixels), PIXEL_QUANTILE)), float(torch.cat(images).max())

    def to_checkpoint(self) -> Checkpoint:
        raise NotImplementedError

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> _Collector:
        raise NotImplementedError
