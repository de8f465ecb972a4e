"""Which earlier candidates are lost."""

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
    return importlib.import_module("kept_candidates")


def box(*spans: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((20, 20, 20), bool)
    for start, end in spans:
        mask[start:end, 4:8, 4:8] = True
    return mask


def test_a_candidate_is_lost_if_none_of_its_lesions_is_touched(bench: ModuleType) -> None:
    label = box((2, 5), (8, 11), (15, 18))
    before = box((4, 9), (16, 19))  # the first touches two lesions
    assert bench.lost(before, box((10, 11), (17, 18)), label, 1.0) == (2, [])
    true, gone = bench.lost(before, box((3, 4)), label, 1.0)
    assert true == 2
    assert gone == ["48 mm3, of which 32 lie in lesions"]
    assert bench.lost(before, np.zeros_like(label), label, 1.0)[1] == [
        "80 mm3, of which 32 lie in lesions",
        "48 mm3, of which 32 lie in lesions",
    ]


def test_false_candidates_and_specks_are_not_looked_at(bench: ModuleType) -> None:
    label = box((2, 5))
    assert bench.lost(box((8, 11)), np.zeros_like(label), label, 1.0) == (0, [])
    assert bench.lost(box((2, 5)), np.zeros_like(label), label, 0.2) == (0, [])  # 9.6 mm3
    assert bench.lost(np.zeros_like(label), label, label, 1.0) == (0, [])
