"""A cohort scores itself, in two passes: features of every scan, each once; then all against all.

In the first pass a :class:`FeatureCollector` takes part in each scan's prediction, so that features are of
exactly what the detector of the second pass is shown. They lie on disk in float16, 2 L C bytes for each image
and layer, and are read one image at a time. The second pass is an ordinary prediction with the
:class:`~medzsad.detectors.mutual.model.MutualDetector` that :func:`score_cohort` returns.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.features.base import PatchFeatures, build_features
from medzsad.detectors.mutual.model import CohortScores, MutualDetector, digest_of, whole_maps
from medzsad.detectors.mutual.scoring import (
    centre_and_limit,
    comparable,
    mutual_scores,
    normalise_layer,
    rescore,
)
from medzsad.detectors.mutual.settings import FEWEST, MutualSettings
from medzsad.detectors.scoring import upsample
from medzsad.errors import BadInput, ModelNotReady
from medzsad.storage.cache import cache_folder
from medzsad.storage.hashing import hash_settings
from medzsad.storage.keyed import KeyedStore

logger = logging.getLogger(__name__)
VERSION = 1  # raised whenever the same images would have other features or scores
Progress = Callable[..., Iterable[Any]]
"""Wraps an iterable, and gets its ``total``, as ``tqdm`` does."""


class FeatureCollector(AnomalyDetector):
    """Takes part in predictions to keep the features of what a detector is shown.

    Args:
        features: the backbone.
    """

    method = "mutual"

    def __init__(self, features: PatchFeatures) -> None:
        super().__init__(image_size=features.image_size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.features = features
        self.name = f"mutual ({features.name})"
        self._batches: list[dict[str, Tensor]] = []

    @torch.inference_mode()
    def predict_at_own_size(self, images: Tensor) -> Prediction:
        digests = [list(digest_of(image)) for image in images]
        inputs = self.preprocess(images.to(self.device, torch.float32))
        with torch.autocast(self.device.type, enabled=False):
            layers = self.features.layers((inputs - self.features.mean) / self.features.std)
        grid = layers[0].shape[-2:]
        batch = {
            "digests": torch.tensor(digests, dtype=torch.uint8),
            "images": layers[-1].float().mean((2, 3)).cpu(),
            "foreground": F.adaptive_max_pool2d(inputs.amax(1, keepdim=True), grid)[:, 0].cpu() > 0,
        }
        for number, layer in enumerate(layers):
            batch[f"layer{number}"] = normalise_layer(layer).half().cpu()
        self._batches.append(batch)
        zeros = inputs.new_zeros(len(inputs))
        return Prediction(inputs[:, 0] * 0, zeros, zeros)

    @property
    def is_empty(self) -> bool:
        """Whether there were no images since the last call of :meth:`take`."""
        return not self._batches

    def forget(self) -> None:
        """Forget what was seen of a scan whose prediction failed."""
        self._batches = []

    def detect(self, inputs: Tensor) -> Prediction:
        raise NotImplementedError("features are kept of images as they are given")

    def take(self, planes: Sequence[str] = ()) -> dict[str, Tensor]:
        """Return the features of all images since the last call, and forget them.

        Args:
            planes: of a volume the plane of each slice, in order along the stack; none of a 2D image.

        Raises:
            BadInput: if there were no images, or not so many.
        """
        batches, self._batches = self._batches, []
        if not batches:
            raise BadInput("it shows nothing that could be compared")
        found = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        if planes:
            counts, seen = Counter(planes), Counter[str]()
            heights = []
            for plane in planes:
                heights.append((seen[plane] + 0.5) / counts[plane])
                seen[plane] += 1
            found["heights"] = torch.tensor(heights, dtype=torch.float64)
            found["planes"] = torch.tensor([PLANES.index(plane) for plane in planes], dtype=torch.uint8)
            if len(heights) != len(found["digests"]):
                raise BadInput("slices of it were shown more than once; run it again with another batch size")
        return found

    def to_checkpoint(self) -> Checkpoint:
        raise ModelNotReady("features are no detector")

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> FeatureCollector:
        raise ModelNotReady("features are no detector")


PLANES = ("axial", "coronal", "sagittal")


class CohortFeatures:
    """The features of scans, on disk, and the backbone that makes them, which is loaded when it is needed.

    They lie in medzsad's cache, in ``mutual/``, and may be deleted at any time: what is missing is made anew.

    Args:
        settings: which backbone.
        device: as for :func:`medzsad.load_detector`.
        load: builds the backbone from its name and ``image_size``; :func:`medzsad.zoo.loading.load_features`
            also finds those whose weights are in the cache.
    """

    def __init__(
        self,
        settings: MutualSettings,
        *,
        device: str = "auto",
        load: Callable[..., PatchFeatures] = build_features,
    ) -> None:
        from medzsad.detectors.devices import resolve_device

        self.load = load
        self.settings, self.device = settings, resolve_device(device)
        self.store = KeyedStore(folder() / "features", ".safetensors", what="features")
        self._collector: FeatureCollector | None = None

    @property
    def collector(self) -> FeatureCollector:
        """What takes part in predictions.

        Raises:
            ModelNotReady: if there is no such backbone, or its weights are missing.
        """
        if self._collector is None:
            backbone = self.load(self.settings.features, image_size=self.settings.image_size)
            self._collector = FeatureCollector(backbone).eval().requires_grad_(False).to(self.device)
        return self._collector

    def key(self, content: str, **settings: Any) -> str:
        """Return the key of a scan's features: its content, the backbone, and how it is shown."""
        backbone = (self.settings.features, self.settings.image_size)
        return hash_settings([VERSION, content, *backbone, settings])[:32]

    def ready(self, key: str) -> bool:
        """Whether a scan's features are there, and whole."""
        return self.store.record(key) != {}

    def keep(self, key: str, tensors: dict[str, Tensor], modality: str) -> None:
        """Keep a scan's features.

        Raises:
            OutputNotWritable: if the disk is full or the cache cannot be written.
        """
        from safetensors.torch import save_file

        with self.store.writing(key) as temporary:
            save_file(tensors, temporary)
        self.store.note(key, {"modality": modality})

    def adopt(self, key: str, content: bytes, modality: str) -> None:
        """Keep a scan's features as another machine wrote them: a safetensors file's bytes.

        Raises:
            OutputNotWritable: if the disk is full or the cache cannot be written.
        """
        with self.store.writing(key) as temporary:
            temporary.write_bytes(content)
        self.store.note(key, {"modality": modality})

    def modality(self, key: str) -> str:
        """Return the modality of a scan whose features are there."""
        return str(self.store.record(key).get("modality", ""))


def folder() -> Path:
    """Return the folder in the cache that features and cohorts are kept in."""
    return cache_folder() / "mutual"


def cohort_key(settings: MutualSettings, keys: Iterable[str]) -> str:
    """Return the key of a cohort: of its scans' features, in any order, and of all settings."""
    return hash_settings([VERSION, settings, sorted(keys)])[:32]


def score_cohort(
    features: CohortFeatures, keys: Sequence[str], *, progress: Progress | None = None
) -> MutualDetector:
    """Compare the scans of a cohort with each other.

    A layer's scores are kept until the cohort is done, so that what was stopped goes on with the next layer.

    Args:
        features: of all of them.
        keys: of the scans, each once; at least three.
        progress: wraps blocks of images, of each layer.

    Raises:
        BadInput: if there are too few scans, or 2D images and volumes, several modalities, or volumes whose
            slices lie in planes of too few others.
        OutputNotWritable: if the cache cannot be written.
    """
    settings, keys = features.settings, sorted(set(keys))
    _check_count(len(keys), "different scans")
    _check_alike([features.modality(key) for key in keys])
    store = KeyedStore(folder() / "scores", ".safetensors", what="scores")
    key = cohort_key(settings, keys)
    with contextlib.ExitStack() as stack:
        images = _Images([features.store.path(name) for name in keys], stack)
        groups = images.groups()
        maps = [
            _kept(store, f"{key}-{layer}", partial(_score_layer, images, layer, groups, features, progress))
            for layer in images.layers
        ]
    mean = torch.stack([upsample(each, maps[0].shape[-2:]) for each in maps]).mean(0)
    size = features.collector.image_size
    highest = _highest(mean, images.foreground, size)
    scores = highest if images.heights is not None else rescore(highest, images.whole, settings.neighbours)
    typical = mean[images.foreground] if bool(images.foreground.any()) else mean.flatten()
    scale = torch.tensor(centre_and_limit(typical, highest)).repeat(len(mean), 1)
    known = CohortScores(images.digests, mean, scores, scale)
    for layer in images.layers:
        store.path(f"{key}-{layer}").unlink(missing_ok=True)
    return MutualDetector(known, image_size=size, settings=asdict(settings) | {"scans": len(keys)})


def _highest(maps: Tensor, foreground: Tensor, side: int) -> Tensor:
    """Return the highest pixel (N,) of each map's foreground; of the whole map where there is none."""
    found = []
    for scores, inside in zip(maps.split(16), foreground.split(16), strict=True):
        pixels = whole_maps(scores, side)
        outside = upsample(inside.float(), (side, side)) == 0
        highest = pixels.masked_fill(outside, -torch.inf).flatten(1).amax(1)
        found.append(torch.where(highest.isfinite(), highest, pixels.flatten(1).amax(1)))
    return torch.cat(found)


class _Images:
    """The images of a cohort: what is small of them in memory, and their features, which are read one by one.

    Attributes:
        scans: which scan each image is of.
        digests, whole, foreground, heights, planes: see :class:`FeatureCollector`; the last two are None of
            2D images.
        layers: names.

    Raises:
        BadInput: if some are 2D images and others slices.
    """

    def __init__(self, paths: Sequence[Path], stack: contextlib.ExitStack) -> None:
        from safetensors import safe_open

        self._files = [stack.enter_context(safe_open(path, framework="pt")) for path in paths]
        names = [sorted(file.keys()) for file in self._files]
        if any(each != names[0] for each in names):
            raise BadInput("2D images and volumes cannot be compared with each other; run them apart")
        self.layers = [name for name in names[0] if name.startswith("layer")]
        self.digests, self.whole, self.foreground = map(self._all, ("digests", "images", "foreground"))
        is_volume = "heights" in names[0]
        self.heights = self._all("heights") if is_volume else None
        self.planes = self._all("planes") if is_volume else None
        counts = [file.get_slice("digests").get_shape()[0] for file in self._files]
        self._places = [(scan, row) for scan, count in enumerate(counts) for row in range(count)]
        self.scans = [scan for scan, _ in self._places]

    def _all(self, name: str) -> Tensor:
        return torch.cat([file.get_tensor(name) for file in self._files])

    def read(self, layer: str, index: int) -> Tensor:
        """Return an image's features, float16 (C, h, w)."""
        scan, row = self._places[index]
        return self._files[scan].get_slice(layer)[row : row + 1][0]

    def groups(self) -> list[list[int]]:
        """Return the images that are compared with each other: all, or of volumes those of each plane."""
        if self.planes is None:
            return [list(range(len(self.scans)))]
        groups = []
        for number in self.planes.unique().tolist():
            group = (self.planes == number).nonzero()[:, 0].tolist()
            _check_count(len({self.scans[i] for i in group}), f"volumes with {PLANES[number]} slices")
            groups.append(group)
        return groups


def _score_layer(
    images: _Images,
    layer: str,
    groups: list[list[int]],
    features: CohortFeatures,
    progress: Progress | None,
) -> Tensor:
    """Return one layer's scores of all images, float32 (N, h, w)."""
    settings, parts = features.settings, []
    for group in groups:
        numbers = {scan: number for number, scan in enumerate(sorted({images.scans[i] for i in group}))}
        scans = [numbers[images.scans[i]] for i in group]
        heights = None if images.heights is None else images.heights[group].tolist()
        parts.append(
            mutual_scores(
                lambda index, group=group: images.read(layer, group[index]),  # type: ignore[misc]
                scans,
                comparable(scans, heights, window=settings.height_window, slices=settings.slices),
                sorted(range(len(group)), key=heights.__getitem__ if heights else None),
                degrees=settings.degrees,
                share=settings.nearest,
                device=features.device,
                progress=progress,
            )
        )
    scores = torch.empty(len(images.scans), *parts[0].shape[1:])
    for group, found in zip(groups, parts, strict=True):
        scores[group] = found
    return scores


def _kept(store: KeyedStore, key: str, compute: Callable[[], Tensor]) -> Tensor:
    """Return scores that are in a store, or else compute and keep them."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    found = store.read(key, lambda path: load_file(path)["scores"], SafetensorError, KeyError)
    if found is None:
        found = compute()
        with store.writing(key) as temporary:
            save_file({"scores": found}, temporary)
    return found


def _check_count(count: int, what: str) -> None:
    if count < FEWEST:
        raise BadInput(
            f"`mutual` compares scans with each other and takes {FEWEST} or more {what}, not {count}"
        )


def _check_alike(modalities: Iterable[str]) -> None:
    """Raise BadInput if scans of several modalities are to be compared; grey and colour images may be."""
    found = sorted({"image" if each in ("rgb", "grey") else each for each in modalities})
    if len(found) > 1:
        raise BadInput(f"scans of several modalities ({', '.join(found)}) cannot be compared; run them apart")
