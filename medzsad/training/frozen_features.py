"""What training does not change of an image, computed once and kept on disk (``cache_features``).

How much that saves depends on the method. AnomalyCLIP trains texts alone: the whole image tower is saved.
HeadCLIP's tower runs from the first layer with head weights on. AdaCLIP with prompts in the image tower keeps
plain CLIP's feature, which dynamic prompts are made from; with prompts in the text tower alone, everything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from medzsad.detectors.base import DTYPES, AnomalyDetector
from medzsad.detectors.protocols import as_trainable
from medzsad.errors import BadInput, OutputNotWritable
from medzsad.storage.cache import free_space
from medzsad.storage.hashing import hash_settings, hash_tensors
from medzsad.storage.keyed import KeyedStore
from medzsad.training.augmentation import Augmentation

VERSION = 1  # raised whenever the same detector and image would give other features
PRECISIONS = ("exact", "bf16")
_CHECK = "sha256"
_ADVICE = "make room, keep features in bf16, choose another folder, or switch cache_features off"


class FeatureCache:
    """Features by the image's own content: an image that changed in any way has other features.

    Every image goes through the tower by itself, so that its features do not depend on what else is in the
    batch, and a resumed training sees the same numbers as one without a break.

    Args:
        folder: where to keep them, in a folder of its own per detector; made when needed.
        detector: whose features. Its settings, the weights of its tower and head weights that do not train
            are part of the key; what it learns is not.
        precision: ``"exact"`` keeps what was computed; ``"bf16"`` rounds it, for half the room.
        compute: what the tower computes in, ``"fp32"``, ``"bf16"`` or ``"fp16"``; None for the detector's.
        augmentation: that the images go through. It must leave each image few variants; each is kept.
        limit: most bytes to keep in this detector's folder; None for what the disk has.

    Attributes:
        found: images read from disk so far.
        computed: images computed so far.

    Raises:
        BadInput: if the augmentation makes every image new each time, nothing of an image is constant, or an
            argument is impossible.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        detector: AnomalyDetector,
        *,
        precision: str = "exact",
        compute: str | None = None,
        augmentation: Augmentation | None = None,
        limit: int | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise BadInput(f"feature precision {precision!r} is not one of {', '.join(PRECISIONS)}")
        if limit is not None and limit <= 0:
            raise BadInput(f"the limit of the feature cache must be positive, not {limit}")
        if augmentation is not None and augmentation.variants is None:
            raise BadInput(
                "cache_features does not go with mosaics or random rotation, scale, brightness or contrast, "
                "which make every image new each time; use flips only, or switch cache_features off"
            )
        self.detector, self._trainable = detector, as_trainable(detector)
        further = self._trainable.frozen_key()
        self.precision = precision
        self.compute = detector.precision if compute is None else compute
        self.limit = limit
        self.found = self.computed = 0
        self.folder = Path(folder) / self._key(further)
        self._store = KeyedStore(self.folder, ".safetensors", what="features", advice=_ADVICE)
        self._used: int | None = None

    def batch(self, images: Tensor) -> dict[str, Tensor]:
        """Features of a batch, from disk as far as they are there; what was missing is kept.

        Args:
            images: float32 (B, 3, S, S), normalised.

        Returns:
            What ``detector.frozen_features`` gives, on the detector's device: to be passed on as ``frozen``.

        Raises:
            OutputNotWritable: if the disk or the limit is full, or the folder cannot be written.
        """
        rows = []
        for image in images.unbind(0):
            key = hash_tensors({"image": image})[:32]
            row = self._store.read(key, _load, SafetensorError)
            if row is None:
                row = self._compute(image[None])
                self._write(key, row)
                self.computed += 1
            else:
                self.found += 1
            rows.append(row)
        joined = {name: torch.cat([row[name] for row in rows]).to(self.detector.device) for name in rows[0]}
        return {n: value.float() if self.precision == "bf16" else value for n, value in joined.items()}

    @cached_property
    def bytes_per_image(self) -> int:
        """The room that one image's features take; found out by computing those of a black one."""
        side = self.detector.image_size
        return sum(value.nbytes for value in self._compute(torch.zeros(1, 3, side, side)).values())

    def check_room(self, images: int) -> None:
        """Check, before the work begins, that the features of so many images will fit.

        Args:
            images: different images, variants by augmentation counted; some may be kept already.

        Raises:
            OutputNotWritable: if they do not fit, saying how much room is needed.
        """
        missing = max(0, images * self.bytes_per_image - self._size())
        room = self._free()
        if missing > room:
            raise OutputNotWritable(
                f"{self.folder}: the features of {images} images need {_gigabytes(missing)} more and there "
                f"is room for {_gigabytes(room)}; {_ADVICE}"
            )

    def _compute(self, image: Tensor) -> dict[str, Tensor]:
        """Features of one image (1, 3, S, S), as they are kept, on the CPU."""
        detector, dtype = self.detector, DTYPES.get(self.compute)
        with torch.no_grad(), torch.autocast(detector.device.type, dtype, enabled=dtype is not None):
            features = self._trainable.frozen_features(image.to(detector.device))
        kept = torch.bfloat16 if self.precision == "bf16" else None
        return {name: value.to("cpu", kept).contiguous() for name, value in features.items()}

    def _write(self, key: str, row: dict[str, Tensor]) -> None:
        content = save(row, metadata={_CHECK: hash_tensors(row)})
        if self.limit is not None and self._size() + len(content) > self.limit:
            raise OutputNotWritable(
                f"{self.folder}: {_gigabytes(self.limit)} of features are full; {_ADVICE}"
            )
        with self._store.writing(key) as temporary:
            temporary.write_bytes(content)
        self._used = self._size() + len(content)

    def _size(self) -> int:
        """Bytes kept in the folder; it is looked through once."""
        if self._used is None:
            self._used = self._store.size()
        return self._used

    def _free(self) -> int:
        free = free_space(self.folder.absolute())
        return free if self.limit is None else max(0, min(free, self.limit - self._size()))

    def _key(self, further: Mapping[str, Any]) -> str:
        detector = self.detector
        described = {
            "version": VERSION,
            "method": detector.method,
            # The class name is the texts' alone.
            "settings": {**detector.settings, "precision": self.compute, "class_name": None},
            "kept": self.precision,
            "tower": hash_tensors(self._trainable.clip.visual.state_dict()),
            **{
                k: hash_tensors(value) if isinstance(value, Mapping) else value
                for k, value in further.items()
            },
        }
        return hash_settings(described)[:32]


def _load(file: Path) -> dict[str, Tensor]:
    """Return kept features.

    Raises:
        SafetensorError, OSError, ValueError: if there are none, or they are damaged.
    """
    with safe_open(file, framework="pt") as stored:
        row = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        check = (stored.metadata() or {}).get(_CHECK)
    if check != hash_tensors(row):
        raise ValueError("damaged")
    return row


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"
