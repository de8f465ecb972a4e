"""Fixtures of the metrics' tests."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from metric_sets import ImageSet, make_set

PARITY = Path(__file__).parents[1] / "parity" / "metrics.npz"


@pytest.fixture(scope="session")
def image_set() -> ImageSet:
    return make_set()


@pytest.fixture(scope="session")
def parity() -> dict[str, np.ndarray]:
    with np.load(PARITY) as file:
        return dict(file)
