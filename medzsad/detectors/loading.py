"""Where bundles of earlier versions look for ``load_detector``, which is in :mod:`medzsad.zoo.loading`."""

from __future__ import annotations

from typing import Any

import medzsad


def load_detector(*arguments: Any, **options: Any) -> Any:
    """Return :func:`medzsad.load_detector` of the same arguments."""
    return medzsad.load_detector(*arguments, **options)
