"""Volumes as training images: cut into slices once, kept on disk, read slice by slice in any order."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.datasets.samples import VolumeSample
from medzsad.errors import OutputNotWritable
from medzsad.inference.slice_frame import SliceFrame
from medzsad.scans.prepared import PreparedVolume
from medzsad.scans.slices import pixel_spacing, slice_image
from medzsad.storage.atomic import sweep

VERSION = 1  # raised whenever the same volume would give other slices


@dataclass(frozen=True)
class SliceSample:
    """One slice of a volume.

    Attributes:
        stack: folder of the volume's slices.
        row: of the stack.
        label: 1 if anything in the slice is anomalous.
        class_name: see :class:`~medzsad.datasets.samples.VolumeSample`.
        id: unique in the data set: the volume's, and the slice's canonical index.
        inner: rows and columns that the slice fills of the square, at a side of ``side`` pixels.
        side: see ``inner``.
    """

    stack: Path
    row: int
    label: int
    class_name: str
    id: str
    inner: tuple[int, int]
    side: int

    def read_square(self) -> tuple[Tensor, Tensor]:
        """Return slice as :class:`~medzsad.inference.slicewise.SliceWisePredictor` shows it to a detector.

        Returns:
            Image float32 (3, side, side) in [0, 1] and mask bool (side, side), padded with 0.
        """
        # Mapped, so that one slice is read and not the volume; a copy, because the map is read-only.
        image = np.load(self.stack / "images.npy", mmap_mode="r")[self.row]
        mask = np.array(np.load(self.stack / "masks.npy", mmap_mode="r")[self.row])
        top, left = ((self.side - length) // 2 for length in self.inner)
        frame = SliceFrame((slice(None), slice(None)), self.inner, (top, left), self.side)
        pixels = frame.fit(np.broadcast_to(image.astype(np.float32) / 255, (3, *mask.shape)))
        marked = F.interpolate(torch.from_numpy(mask)[None, None].float(), self.inner, mode="nearest-exact")
        padding = (left, self.side - left - self.inner[1], top, self.side - top - self.inner[0])
        return pixels, F.pad(marked[0, 0], padding) > 0.5


def cut_volumes(
    samples: Sequence[VolumeSample], folder: Path, *, plane: str = "auto", side: int
) -> tuple[SliceSample, ...]:
    """Return the slices of volumes, as :func:`medzsad.predict` would cut and scale them.

    A volume that was cut before, and has not changed, is not cut again. Slices without foreground are left
    out. Intensities are kept at 8 bits, like those of 2D data sets.

    Args:
        samples: the volumes.
        folder: where slices are kept.
        plane: ``"auto"`` (acquisition plane), ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        side: of the detector's input, in pixels.

    Raises:
        BadInput: if a volume or its label cannot be read.
        OutputNotWritable: if slices cannot be stored.
    """
    slices = []
    for sample in samples:
        stack = folder / _key(sample, plane)
        if not (stack / "index.json").is_file():
            _cut(sample, plane, stack)
        index = json.loads((stack / "index.json").read_text(encoding="utf-8"))
        inner = _inner(index["millimetres"], side)
        slices += [
            SliceSample(stack, row, label, sample.class_name, f"{sample.id}/{number:04d}", inner, side)
            for row, (number, label) in enumerate(zip(index["indices"], index["labels"], strict=True))
        ]
    return tuple(slices)


def _key(sample: VolumeSample, plane: str) -> str:
    facts: list[Any] = [VERSION, sample.volume, sample.positive, plane]
    for path in (sample.image, sample.label):
        state = path.stat() if path.is_file() else None
        facts.append([str(path.resolve()), state and state.st_size, state and state.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def _cut(sample: VolumeSample, plane: str, stack: Path) -> None:
    scan = sample.read_scan()
    label = sample.read_label()
    volume = PreparedVolume.of(scan, plane=plane)
    label, foreground = volume.view.to_canonical(label), volume.foreground
    chosen = volume.planes[0]
    indices = volume.slices(chosen)
    spacing = pixel_spacing(volume.scan.spacing, chosen)
    window = SliceFrame.around(foreground, chosen, spacing, 1).window
    images, masks = [], []
    for index in indices:
        pixels = volume.image(chosen, index)[(slice(None), *window)]
        images.append(np.rint(255 * pixels).astype(np.uint8))
        masks.append((slice_image(label, chosen, index) & slice_image(foreground, chosen, index))[window])
    content = np.stack(images)
    if (content == content[:, :1]).all():
        content = content[:, :1]  # grey: one channel stands for three
    facts = {
        "indices": indices,
        "labels": [int(mask.any()) for mask in masks],
        "millimetres": [float(n * mm) for n, mm in zip(content.shape[2:], spacing, strict=True)],
    }
    _store(stack, content, np.stack(masks), facts)


def _store(stack: Path, images: np.ndarray, masks: np.ndarray, facts: dict[str, Any]) -> None:
    try:
        stack.parent.mkdir(parents=True, exist_ok=True)
        sweep(stack.parent)
        staging = Path(tempfile.mkdtemp(dir=stack.parent, prefix=".medzsad-"))
        try:
            np.save(staging / "images.npy", images)
            np.save(staging / "masks.npy", masks)
            (staging / "index.json").write_text(json.dumps(facts), encoding="utf-8")
            shutil.rmtree(stack, ignore_errors=True)
            os.replace(staging, stack)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise OutputNotWritable(f"{stack}: cannot store slices ({error.strerror or error})") from error


def _inner(millimetres: Sequence[float], side: int) -> tuple[int, int]:
    """Rows and columns that a slice fills of a square, once its pixels are square."""
    scale = side / max(millimetres)
    rows, columns = (max(1, min(side, round(length * scale))) for length in millimetres)
    return rows, columns
