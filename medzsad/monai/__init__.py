"""The doors for those who work with MONAI: transforms, an inferer, a reader and what bundles need.

>>> from medzsad.monai import AnomalyMapd
>>> add_map = AnomalyMapd("image", detector="medzsad-mini")      # doctest: +SKIP

Names are resolved when they are asked for: importing this package imports neither MONAI nor PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medzsad.monai.inferer import AnomalyInferer, FiguresHandler, fixed_threshold, scores_and_labels
    from medzsad.monai.reader import MedzsadReader, labelled_scans_at, scans_at
    from medzsad.monai.transforms import AnomalyMapd, LoadLabeld, SavePredictiond

_HOMES = {
    "AnomalyInferer": "medzsad.monai.inferer",
    "AnomalyMapd": "medzsad.monai.transforms",
    "FiguresHandler": "medzsad.monai.inferer",
    "LoadLabeld": "medzsad.monai.transforms",
    "MedzsadReader": "medzsad.monai.reader",
    "SavePredictiond": "medzsad.monai.transforms",
    "fixed_threshold": "medzsad.monai.inferer",
    "labelled_scans_at": "medzsad.monai.reader",
    "scans_at": "medzsad.monai.reader",
    "scores_and_labels": "medzsad.monai.inferer",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medzsad.monai' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
