"""Which class implements which method. Plain names, so that nothing heavy is imported before it is needed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from medzsad.errors import ModelNotReady

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

METHODS: dict[str, str] = {
    "headclip": "medzsad.detectors.headclip:HeadCLIP",
    "mini": "medzsad.detectors.mini:MedzsadMini",
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
