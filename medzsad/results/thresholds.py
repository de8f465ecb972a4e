"""Where an anomaly map is cut into a mask."""

from __future__ import annotations

import re

import numpy as np

from medzsad.errors import BadInput


def parse_threshold(rule: float | str) -> float | str:
    """Return a threshold rule, checked: a number in [0, 1], ``"pNN"`` or ``"otsu"``.

    Raises:
        BadInput: if it is none of these.
    """
    text = str(rule).strip().lower()
    if text == "otsu":
        return text
    number = re.fullmatch(r"(p?)(\d*\.?\d+|\d+\.)", text)
    if number:
        value = float(number[2])
        if number[1] and value <= 100:
            return f"p{value:g}"
        if not number[1] and value <= 1:
            return value
    raise BadInput(f"threshold {rule!r} is not a number from 0 to 1, a percentile such as p99.5, or otsu")


def resolve_threshold(rule: float | str, values: np.ndarray) -> float:
    """Return the threshold that ``rule`` gives on the anomaly map's foreground ``values``."""
    if isinstance(rule, float):
        return rule
    if not values.size:
        return 1.0
    if rule == "otsu":
        from skimage.filters import threshold_otsu

        return float(threshold_otsu(values)) if values.min() < values.max() else 1.0
    return float(np.percentile(values, float(rule[1:])))
