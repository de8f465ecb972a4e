"""Which class implements which method. Plain names, so that nothing heavy is imported before it is needed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from medzsad.errors import ModelNotReady

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

METHODS: dict[str, str] = {
    "adaclip": "medzsad.detectors.adaclip.model:AdaCLIP",
    "anomalyclip": "medzsad.detectors.headclip.anomalyclip:AnomalyCLIP",
    "asymmetry": "medzsad.detectors.references:Asymmetry",
    "brightness": "medzsad.detectors.references:Brightness",
    "clip": "medzsad.detectors.zero_shot.plain_clip:PlainCLIP",
    "darkness": "medzsad.detectors.references:Darkness",
    "headclip": "medzsad.detectors.headclip.model:HeadCLIP",
    "mini": "medzsad.detectors.mini.model:MedzsadMini",
    "mutual": "medzsad.detectors.mutual.model:MutualDetector",
    "normals": "medzsad.detectors.normals.model:NormalsDetector",
    "winclip": "medzsad.detectors.zero_shot.winclip:WinCLIP",
}


def detector_class(method: str) -> type[AnomalyDetector]:
    """Return the class that implements ``method``.

    Raises:
        ModelNotReady: if no method has that name.
    """
    if method not in METHODS:
        raise ModelNotReady(f"unknown method {method!r}; this version knows {', '.join(sorted(METHODS))}")
    module, name = METHODS[method].split(":")
    return getattr(importlib.import_module(module), name)
