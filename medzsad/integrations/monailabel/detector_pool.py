"""Detectors that all requests of a server share: loaded once each, and only so many predictions at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.integrations.monailabel.model_list import OfferedModel
from medzsad.integrations.monailabel.parameters import InferParameters
from medzsad.results.prediction import ScanPrediction

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

Key = tuple[str, str, str | None]


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    detector: AnomalyDetector | None = None


class DetectorPool:
    """Loaded detectors, by what they were loaded from.

    A model that was trained anew is another key: a request that runs keeps the detector it has, and the next
    one gets the new one.

    Args:
        device, precision, backend: for :func:`medzsad.load_detector`.
        parallel: predictions at once; further ones wait.
        keep: detectors that stay loaded; the one unused longest goes first.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "torch",
        parallel: int = 1,
        keep: int = 2,
    ) -> None:
        self.device, self.precision, self.backend, self.keep = device, precision, backend, keep
        self._slots: OrderedDict[Key, _Slot] = OrderedDict()
        self._guard = threading.Lock()
        self._turns = threading.BoundedSemaphore(parallel)

    def detector(self, model: OfferedModel) -> AnomalyDetector:
        """The model's detector; of several threads that want it, one loads it.

        Raises:
            ModelNotReady: if it cannot be loaded; the next call tries again.
        """
        key = (model.source, model.version, model.clip_weights)
        with self._guard:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            while len(self._slots) > self.keep:
                self._slots.popitem(last=False)
        with slot.lock:
            if slot.detector is None:
                from medzsad.detectors.loading import load_detector

                slot.detector = load_detector(
                    model.source,
                    device=self.device,
                    precision=self.precision,
                    backend=self.backend,
                    clip_weights=model.clip_weights,
                )
            return slot.detector

    def predict(self, model: OfferedModel, scan: Path, parameters: InferParameters) -> ScanPrediction:
        """What ``medzsad predict`` says of a scan.

        Raises:
            BadInput: if the scan cannot be read, or a parameter does not fit it.
            ModelNotReady: if the model cannot be loaded.
        """
        from medzsad.predicting import predict
        from medzsad.scans.readers import read_scan

        with self._turns:
            # The scan first: a bad file must not cost the loading of a model.
            read = read_scan(scan, volume=parameters.volume, modality=parameters.modality)
            return predict(
                read,
                self.detector(model),
                plane=parameters.plane,
                window=parameters.window,
                threshold=parameters.threshold,
                batch_size=parameters.batch_size,
            )
