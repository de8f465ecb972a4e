"""Text, JSON and YAML of users."""

from __future__ import annotations

import os
import time

import pytest

from medzsad.errors import BadInput
from medzsad.storage.text_files import compose_yaml, parse_json, parse_yaml, read_json, read_text, read_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


DEEP = ("[" * 100_000, "{a: " * 5000, "- " * 2000)


@pytest.mark.parametrize("text", [BOMB, *DEEP, "x: &x [*x]", "a: [", "\x00", "a: 2026-99-99"])
def test_yaml_that_would_blow_up_is_refused_at_once(tmp_path, text) -> None:
    (tmp_path / "x.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(BadInput, match=r"x\.yaml") as caught:
        read_yaml(tmp_path / "x.yaml")
    assert time.process_time() - start < 5
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_aliases_that_stand_for_little_are_read() -> None:
    # As PyYAML itself writes what is held twice; catalogues of older releases have them.
    assert parse_yaml("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}\n", "x") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }


def test_yaml_reads_as_before() -> None:
    assert parse_yaml("a: {b: [1, 2.5, yes, null, 'x']}\n", "x") == {"a": {"b": [1, 2.5, True, None, "x"]}}
    assert parse_yaml("", "x") is None
    assert compose_yaml("", "x") is None


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "{", '"\\ud800'])
def test_json_that_would_blow_up_is_refused(text) -> None:
    with pytest.raises(BadInput, match=r"^x: "):
        parse_json(text, "x")


def test_files_that_are_no_text(tmp_path, monkeypatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large").write_bytes(b" " * 2_000_000)
    monkeypatch.setenv("MEDZSAD_MAX_TEXT_MB", "1")
    for name in ("pipe", "binary", "large", "none"):
        with pytest.raises(BadInput, match=name):
            read_text(tmp_path / name)
        with pytest.raises(BadInput, match=name):
            read_json(tmp_path / name)
