"""What is kept on disk between runs: predictions, image by image, and whole evaluations."""

from __future__ import annotations

import copy
import json
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from medzsad.datasets.samples import SampleSet
from medzsad.detectors.volume_rules import NO_RULES
from medzsad.errors import certain
from medzsad.evaluation.outcome import (
    Evaluation,
    published_beside,
)
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.results.report import to_json
from medzsad.storage.hashing import hash_files, hash_settings, hash_tensors
from medzsad.storage.keyed import KeyedStore

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

_ADVICE = "make room, set MEDZSAD_CACHE to another folder, or use `no_cache`"
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

    Attributes:
        parts: of a combination the caches of its parts, where the predictions of each alone are found, too.
    """

    def __init__(self, folder: Path | None, detector: AnomalyDetector, settings: dict[str, Any]) -> None:
        self.parts = tuple(PredictionCache(folder, part, settings) for part in detector.parts)
        self._written: set[Path] = set()  # in this run, for files that a data set holds twice
        self._count: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._stores: dict[Path, KeyedStore] = {}
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
        return self._count["found"] + sum(part.found for part in self.parts)

    def of(self, detector: AnomalyDetector) -> PredictionCache:
        """Return the same cache for a detector of the same weights whose texts speak of another class."""
        other = copy.copy(self)
        other.parts = tuple(cache.of(part) for cache, part in zip(self.parts, detector.parts, strict=True))
        if self._base is not None:
            other.folder = self._folder_of(self._base, detector)
        return other

    def _folder_of(self, base: Path, detector: AnomalyDetector) -> Path:
        # The weights are those that the first detector came with: with settings, they decide all texts.
        return base / hash_settings({**self._described, "settings": detector.settings})[:32]

    def key_of(self, path: Path) -> str:
        """Return the hash of a file's contents; ``""`` where nothing is kept.

        Raises:
            BadInput: if it cannot be read.
        """
        return hash_files(path) if self.folder is not None else ""

    def fetch(self, path: Path, compute: Callable[[], StoredPrediction], part: str = "") -> StoredPrediction:
        """Return the prediction of a file, computed and kept if it is not there yet.

        Args:
            path: the file.
            compute: makes the prediction.
            part: of the file, where it holds several.

        Raises:
            BadInput: if the file cannot be read.
            OutputNotWritable: if the prediction cannot be kept.
        """
        key = self.key_of(path) + part
        stored = self.get(key)
        if stored is None:
            stored = compute()
            self.put(key, stored)
        return stored

    def get(self, key: str) -> StoredPrediction | None:
        """Return the prediction of the file whose hash is ``key``.

        None if there is none, or it is damaged.
        """
        if self.folder is None:
            return None
        prediction = self._store.read(key, _load, KeyError, EOFError, zipfile.BadZipFile)
        if prediction is not None:
            with self._counting:  # files are read ahead by several threads
                self._count["found"] += self._store.path(key) not in self._written
        return prediction

    def put(self, key: str, prediction: StoredPrediction) -> None:
        """Keep a prediction; the file appears complete or not at all.

        Raises:
            OutputNotWritable: if the disk is full or the folder cannot be written.
        """
        if self.folder is None:
            return
        with self._store.writing(key) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                anomaly_map=prediction.anomaly_map,
                score=prediction.score,
                probability=prediction.probability,
            )
        self._written.add(self._store.path(key))

    @property
    def _store(self) -> KeyedStore:
        folder = certain(self.folder)
        if folder not in self._stores:
            self._stores[folder] = KeyedStore(folder, ".npz", what="predictions", advice=_ADVICE)
        return self._stores[folder]


def _load(path: Path) -> StoredPrediction:
    with np.load(path, allow_pickle=False) as stored:
        return StoredPrediction(stored["anomaly_map"], float(stored["score"]), float(stored["probability"]))


def weights_hash(detector: AnomalyDetector) -> str:
    """SHA-256 over all parameters and buffers."""
    return hash_tensors(detector.state_dict())


RESULTS_VERSION = 1  # raised whenever the same fingerprint would stand for other figures, or the form changes


def describe_detectors(detectors: Sequence[AnomalyDetector]) -> list[dict[str, Any]]:
    """Return what the figures of detectors depend on, JSON-serialisable; reads all their weights."""
    return [
        {
            "name": detector.name,
            "method": detector.method,
            "settings": detector.settings,
            "framing": detector.framing,
            "threshold": detector.threshold,
            **({"own_thresholds": own} if (own := detector.own_thresholds) else {}),
            **({"volume_rules": asdict(rules)} if (rules := detector.volume_rules) != NO_RULES else {}),
            "seen": list(detector.seen),
            "weights": weights_hash(detector),
        }
        for detector in detectors
    ]


def fingerprint(
    samples: SampleSet,
    settings: EvaluationSettings,
    detectors: Sequence[dict[str, Any]],
    references: Sequence[str],
) -> str:
    """Return a hash of everything that the figures of an evaluation depend on.

    Args:
        samples: the data set; of its files size and time of change count, not the contents.
        settings: of the evaluation, the rule of the masks decided.
        detectors: from :func:`describe_detectors`.
        references: names of the trivial references.
    """
    from medzsad import __version__

    description = {
        "version": [RESULTS_VERSION, __version__],
        "set": [samples.name, samples.layout, samples.split, samples.level, samples.notes],
        "samples": [_facts(asdict(sample)) for sample in samples],
        "settings": settings.as_dict(),
        "detectors": list(detectors),
        "references": list(references),
    }
    return hash_settings(description)[:32]


def load_evaluation(path: Path, samples: SampleSet) -> Evaluation | None:
    """Return the evaluation of ``samples`` kept in ``path``, with today's published figures; None if none."""
    ids = {name: [sample.id for sample in samples if sample.class_name == name] for name in samples.classes}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for detector in content["detectors"]:
            for one in detector["classes"]:
                for name, case in zip(ids[one["name"]], one["cases"], strict=True):
                    case["id"] = name
        content |= {"published": published_beside(samples), "notes": samples.notes, "doubt": samples.doubt}
        return TypeAdapter(Evaluation).validate_python(content)
    except (OSError, ValueError, KeyError, TypeError):  # missing, cut short, or of another version
        return None


def keep_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Keep an evaluation in ``path``, without file names; the file appears complete or not at all.

    Raises:
        OutputNotWritable: if it cannot be written.
    """
    content = {**asdict(evaluation), "published": [], "notes": [], "doubt": ""}
    for detector in content["detectors"]:
        for one in detector["classes"]:
            for case in one["cases"]:
                del case["id"]
    store = KeyedStore(path.parent, path.suffix, what="results", advice=_ADVICE)
    with store.writing(path.stem) as temporary:
        temporary.write_text(to_json(content), encoding="utf-8")


def _facts(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a sample's fields, with size and time of change in the place of its files."""
    return {
        name: _state(value) if isinstance(value, Path) else value for name, value in sorted(fields.items())
    }


def _state(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
