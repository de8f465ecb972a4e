"""The calibration of maps on volumes."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS / "bench"))
    return importlib.import_module("volume_calibration")


def test_voxels_their_values_and_lesions_of_each_tenth(bench: ModuleType) -> None:
    values = np.array([0.0, 0.05, 0.55, 0.55, 0.55, 1.0])
    table = bench.tenths_of(values, np.array([False, True, True, False, True, True]))
    assert table[0].tolist() == [2, pytest.approx(0.05), 1]
    assert table[5].tolist() == [3, pytest.approx(1.65), 2]
    assert table[9].tolist() == [1, 1, 1]
    assert table[:, 0].sum() == 6


def test_the_error_is_0_where_values_are_shares_and_large_where_they_are_not(bench: ModuleType) -> None:
    rng = np.random.default_rng(0)
    values = rng.random(200_000)
    assert bench.calibration_error(bench.tenths_of(values, rng.random(200_000) < values)) < 0.01
    assert bench.calibration_error(bench.tenths_of(values, np.zeros(200_000, bool))) == pytest.approx(
        0.5, abs=0.01
    )
    assert bench.calibration_error(bench.tenths_of(values[:0], np.zeros(0, bool))) == 0
