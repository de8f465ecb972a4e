"""The package's own errors."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from medzsad.errors import BadInput, certain
from medzsad.scans.readers import read_scan


def test_what_is_certain_is_given_back_and_none_is_a_fault() -> None:
    values: list[int] = []
    assert certain(values) is values
    assert certain(0) == 0
    with pytest.raises(TypeError, match="must be known"):
        certain(None)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("up\x1b[1A\x1b[2K.png", "up\\x1b[1A\\x1b[2K.png"),
        ("back\rok.png", "back\\rok.png"),
        ("red\x1b[31m.png", "red\\x1b[31m.png"),
        ("bidi\u202e.png", "bidi\\u202e.png"),
        ("byte\udcff.png", "byte\\udcff.png"),
        ("Schädel 3.png", "Schädel 3.png"),
    ],
)
def test_names_of_files_command_no_terminal(tmp_path: Path, name: str, shown: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_scan(tmp_path / name)
    assert f"{shown} does not exist" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
