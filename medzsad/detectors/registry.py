"""Which class implements which method. Plain names, so that nothing heavy is imported before it is needed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from medzsad.errors import ModelNotReady

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

METHODS: dict[str, str] = {
    "adaclip": "medzsad.detectors.adaclip:AdaCLIP",
    "anomalyclip": "medzsad.detectors.anomalyclip:AnomalyCLIP",
    "asymmetry": "medzsad.detectors.references:Asymmetry",
    "brightness": "medzsad.detectors.references:Brightness",
    "clip": "medzsad.detectors.plain_clip:PlainCLIP",
    "darkness": "medzsad.detectors.references:Darkness",
    "headclip": "medzsad.detectors.headclip:HeadCLIP",
    "mini": "medzsad.detectors.mini:MedzsadMini",
    "winclip": "medzsad.detectors.winclip:WinCLIP",
}


def detector_class(method: str) -> type[AnomalyDetector]:
    """The class that implements ``method``.

    Raises:
        ModelNotReady: if no method has that name.
    """
    if method not in METHODS:
        raise ModelNotReady(f"unknown method {method!r}; this version knows {', '.join(sorted(METHODS))}")
    module, name = METHODS[method].split(":")
    return getattr(importlib.import_module(module), name)
