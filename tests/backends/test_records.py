from __future__ import annotations

import logging
from pathlib import Path

import pytest

from medzsad.backends import records
from medzsad.backends.records import Record, Timing, choose, cpu_name, read_record, write_record

pytestmark = pytest.mark.usefixtures("cache_dir")

TORCH = Timing("torch", "fp32", {"images": 10.0}, 0.0, 0.0)
ROUNDED = Timing("torch", "bf16", {"images": 20.0}, 5e-3, 5e-4)
OPENVINO = Timing("openvino", "fp32", {"images": 15.0}, 1e-6, 1e-6)
TOO_FAR = Timing("openvino", "bf16", {"images": 40.0}, 5e-3, 2e-3)


def keep(*timings: Timing) -> Record:
    record = Record("our", cpu_name(), 2, 1, {"images": 42}, timings)
    write_record("digest", record)
    return record


def test_a_record_comes_back_as_it_was() -> None:
    assert read_record("digest") is None
    record = keep(TORCH, OPENVINO)
    assert read_record("digest") == record
    assert read_record("another") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"timings": [{}]}', '{"timings": 3}'])
def test_a_damaged_record_is_none(cache_dir: Path, content: str) -> None:
    keep(TORCH)
    (path,) = (cache_dir / "timings").glob("*.json")
    path.write_text(content)
    assert read_record("digest") is None
    assert choose("digest", "auto", "our") == ("torch", "auto")


def test_other_versions_and_processors_have_records_of_their_own(monkeypatch) -> None:
    keep(TORCH, OPENVINO)
    monkeypatch.setattr(records, "version_of", lambda backend: "99")
    assert read_record("digest") is None


def test_another_processor_has_no_record(monkeypatch) -> None:
    keep(TORCH)
    monkeypatch.setattr(records, "cpu_name", lambda: "another")
    assert read_record("digest") is None


@pytest.mark.parametrize(
    ("timings", "precision", "expected", "words"),
    [
        ((TORCH, OPENVINO, TOO_FAR), "auto", ("openvino", "fp32"), "1.50 times torch fp32"),
        ((TORCH, OPENVINO, TOO_FAR, ROUNDED), "auto", ("torch", "bf16"), "backend: torch bf16"),
        ((TORCH, OPENVINO, ROUNDED), "fp32", ("openvino", "fp32"), "openvino fp32"),
        ((TORCH, TOO_FAR), "auto", ("torch", "fp32"), "torch fp32"),
        ((TORCH, TOO_FAR), "bf16", ("torch", "bf16"), "nothing measured in bf16 is within the bounds"),
    ],
)
def test_the_fastest_within_the_bounds_is_taken_and_said(timings, precision, expected, words, caplog) -> None:
    keep(*timings)
    with caplog.at_level(logging.INFO, "medzsad"):
        assert choose("digest", precision, "our") == expected
    (said,) = caplog.messages
    assert words in said


def test_without_a_record_it_is_torch_and_said_how_to_measure(caplog) -> None:
    with caplog.at_level(logging.INFO, "medzsad"):
        assert choose("digest", "auto", "our") == ("torch", "auto")
    assert caplog.messages == [
        "backend: torch (not measured on this machine; medzsad models time our measures)"
    ]


def test_nan_is_not_within_the_bounds() -> None:
    assert not Timing("onnx", "fp32", {"images": 99.0}, float("nan"), 0.0).within


def test_slices_decide_where_there_are_both() -> None:
    fast = Timing("onnx", "fp32", {"slices": 1.0, "images": 100.0}, 0.0, 0.0)
    slow = Timing("torch", "fp32", {"slices": 2.0, "images": 1.0}, 0.0, 0.0)
    assert keep(slow, fast).fastest() == slow
    assert read_record("digest").fastest() == slow
