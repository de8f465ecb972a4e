from __future__ import annotations

import numpy as np
import pytest

from medzsad.errors import BadInput
from medzsad.results.thresholds import parse_threshold, resolve_threshold


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5", 0.5), (0.25, 0.25), ("p99.5", "p99.5"), ("P90", "p90"), ("otsu", "otsu"), (1, 1.0)],
)
def test_rules_that_are_understood(text, expected):
    assert parse_threshold(text) == expected


@pytest.mark.parametrize("text", ["1.5", "p101", "high", "-0.1", "nan", "", "p"])
def test_rules_that_are_not(text):
    with pytest.raises(BadInput, match="threshold"):
        parse_threshold(text)


def test_percentiles_and_otsu_look_at_the_values():
    values = np.concatenate([np.full(990, 0.1), np.full(10, 0.9)]).astype(np.float32)
    assert resolve_threshold(0.4, values) == 0.4
    assert resolve_threshold("p99.5", values) == pytest.approx(0.9)
    assert 0.1 <= resolve_threshold("otsu", values) < 0.9
    assert resolve_threshold("otsu", np.full(5, 0.3)) == 1.0
    assert resolve_threshold("p50", np.array([])) == 1.0
