"""medzsad: zero-shot anomaly detection for medical scans.

>>> import medzsad
>>> result = medzsad.predict("scan.nii.gz")      # doctest: +SKIP
>>> result.save("out/")                          # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from medzsad.client import Client
    from medzsad.detectors.base import AnomalyDetector, Prediction
    from medzsad.errors import BadInput, MedzsadError, ModelNotReady
    from medzsad.predicting import predict
    from medzsad.results.prediction import ScanPrediction
    from medzsad.scans.readers import read_scan
    from medzsad.scans.scan import Modality, Scan
    from medzsad.zoo.loading import load_detector

# Name -> module: importing medzsad must not import torch, so that the command line answers at once.
_HOMES = {
    "AnomalyDetector": "medzsad.detectors.base",
    "BadInput": "medzsad.errors",
    "Client": "medzsad.client",
    "MedzsadError": "medzsad.errors",
    "Modality": "medzsad.scans.scan",
    "ModelNotReady": "medzsad.errors",
    "Prediction": "medzsad.detectors.base",
    "Scan": "medzsad.scans.scan",
    "ScanPrediction": "medzsad.results.prediction",
    "load_detector": "medzsad.zoo.loading",
    "predict": "medzsad.predicting",
    "read_scan": "medzsad.scans.readers",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name == "monai":  # a package of our own, and lazy itself
        return importlib.import_module("medzsad.monai")
    if name not in _HOMES:
        raise AttributeError(f"module 'medzsad' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
