"""The package's own errors."""

from __future__ import annotations

import pytest

from medzsad.errors import certain


def test_what_is_certain_is_given_back_and_none_is_a_fault() -> None:
    values: list[int] = []
    assert certain(values) is values
    assert certain(0) == 0
    with pytest.raises(TypeError, match="must be known"):
        certain(None)
