"""Fixtures of the metrics' tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from metric_sets import ImageSet, make_set

PARITY = Path(__file__).parents[1] / "parity" / "metrics.npz"


@pytest.fixture(scope="session")
def image_set() -> ImageSet:
    return make_set()


@pytest.fixture(scope="session")
def parity() -> dict[str, np.ndarray]:
    with np.load(PARITY) as file:
        return dict(file)
