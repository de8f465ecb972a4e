"""Detectors that all requests of a server share: loaded once each, and only so many predictions at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.detectors.organs import name_of
from medzsad.errors import BadInput
from medzsad.integrations.monailabel.models import OfferedModel
from medzsad.integrations.monailabel.parameters import InferParameters
from medzsad.results.prediction import ScanPrediction

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

Key = tuple[str, str, str | None]
TOLD = 16  # what the texts of one detector were last about, kept


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    detector: AnomalyDetector | None = None
    told: OrderedDict[tuple[str | None, str], AnomalyDetector] = field(default_factory=OrderedDict)


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

    def detector(
        self, model: OfferedModel, *, organ: str | None = None, class_name: str | None = None
    ) -> AnomalyDetector:
        """Return the model's detector; of several threads that want it, one loads it.

        Args:
            model: the model.
            organ, class_name: what its texts are to speak of; its weights are shared by all of these.

        Raises:
            BadInput: if the model's texts name nothing.
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
                from medzsad.zoo.loading import load_detector

                slot.detector = load_detector(
                    model.source,
                    device=self.device,
                    precision=self.precision,
                    backend=self.backend,
                    clip_weights=model.clip_weights,
                )
            return self._told(slot, slot.detector, organ, class_name)

    @staticmethod
    def _told(
        slot: _Slot, detector: AnomalyDetector, organ: str | None, class_name: str | None
    ) -> AnomalyDetector:
        name = name_of(organ, class_name)
        if name is None:
            return detector
        if not detector.uses_organ:
            raise BadInput(f"{detector.name}'s texts name no organ or class; leave organ and class_name out")
        told = slot.told.get((organ, name))
        if told is None:
            told = detector.for_classes([name], organ=organ)[name]
            slot.told[organ, name] = told
        slot.told.move_to_end((organ, name))
        while len(slot.told) > TOLD:
            slot.told.popitem(last=False)
        return told

    def predict(self, model: OfferedModel, scan: Path, parameters: InferParameters) -> ScanPrediction:
        """Return what ``medzsad predict`` says of a scan.

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
                self.detector(model, organ=parameters.organ, class_name=parameters.class_name),
                **parameters.options(),
            )
