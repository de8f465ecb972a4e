"""Predictions kept on disk, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import copy
import hashlib
import json
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.errors import BadInput, OutputNotWritable
from medzsad.storage.atomic import replacing

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

VERSION = 2  # raised whenever the same detector and file would give another prediction


@dataclass(frozen=True)
class StoredPrediction:
    """What is kept of one image or volume.

    Attributes:
        anomaly_map: float32, of any resolution.
        score: image or volume score.
        probability: image-level probability.
    """

    anomaly_map: np.ndarray
    score: float
    probability: float


class PredictionCache:
    """One folder per detector, settings and class name, one file per image, named by hashes: nothing of a
    file's name.

    Args:
        folder: the cache's folder; None keeps nothing.
        detector: whose predictions; its settings and all its weights are part of the key.
        settings: everything else that a prediction depends on, JSON-serialisable.
    """

    def __init__(self, folder: Path | None, detector: AnomalyDetector, settings: dict[str, Any]) -> None:
        self._written: set[Path] = set()  # in this run, for files that a data set holds twice
        self._count: Counter[str] = Counter()
        self.folder = self._base = folder
        if folder is not None:
            self._described = {
                "version": VERSION,
                "method": detector.method,
                "weights": weights_hash(detector),
                "other": settings,
            }
            self.folder = self._folder_of(folder, detector)

    @property
    def found(self) -> int:
        """How many predictions of earlier runs were used so far, of all classes."""
        return self._count["found"]

    def of(self, detector: AnomalyDetector) -> PredictionCache:
        """Return the same cache for a detector of the same weights whose texts speak of another class."""
        other = copy.copy(self)
        if self._base is not None:
            other.folder = self._folder_of(self._base, detector)
        return other

    def _folder_of(self, base: Path, detector: AnomalyDetector) -> Path:
        # The weights are those that the first detector came with: with settings, they decide all texts.
        text = json.dumps({**self._described, "settings": detector.settings}, sort_keys=True, default=str)
        return base / hashlib.sha256(text.encode()).hexdigest()[:32]

    def get(self, key: str) -> StoredPrediction | None:
        """Return the prediction of the file whose hash is ``key``.

        None if there is none, or it is damaged.
        """
        if self.folder is None:
            return None
        path = self.folder / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                prediction = StoredPrediction(
                    stored["anomaly_map"], float(stored["score"]), float(stored["probability"])
                )
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        self._count["found"] += path not in self._written
        return prediction

    def put(self, key: str, prediction: StoredPrediction) -> None:
        """Keep a prediction; the file appears complete or not at all.

        Raises:
            OutputNotWritable: if the disk is full or the folder cannot be written.
        """
        if self.folder is None:
            return
        try:
            path = self.folder / f"{key}.npz"
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.savez_compressed(
                    file,
                    anomaly_map=prediction.anomaly_map,
                    score=prediction.score,
                    probability=prediction.probability,
                )
            self._written.add(path)
        except OSError as error:
            raise OutputNotWritable(
                f"{self.folder}: predictions cannot be kept there ({error.strerror or error}); make room, "
                "set MEDZSAD_CACHE to another folder, or use `no_cache`"
            ) from error


def weights_hash(detector: AnomalyDetector) -> str:
    """SHA-256 over all parameters and buffers."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(detector.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_hash(*paths: Path) -> str:
    """SHA-256 of the contents of files, piece by piece; a folder counts as its files, in order.

    Raises:
        BadInput: if one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        for part in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            try:
                with open(part, "rb") as file:
                    while piece := file.read(1 << 20):
                        digest.update(piece)
            except OSError as error:
                raise BadInput(
                    f"{part} cannot be read ({error.strerror or error}); check the file."
                ) from error
    return digest.hexdigest()
