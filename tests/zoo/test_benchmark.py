from __future__ import annotations

import logging

import pytest
import torch

from medzsad.backends import runtimes
from medzsad.backends.records import read_record
from medzsad.backends.store import digest_of
from medzsad.detectors.references import Asymmetry
from medzsad.errors import BadInput
from medzsad.zoo.benchmark import measure_backends, time_backends
from medzsad.zoo.loading import load_detector

pytestmark = pytest.mark.usefixtures("cache_dir")


def test_everything_that_is_there_is_measured_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    for package in ("openvino", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    said: list[str] = []
    with caplog.at_level(logging.INFO, "medzsad"):
        record = measure_backends("asymmetry", batch=2, seconds=0, say=said.append)
    measured = [(one.backend, one.precision) for one in record.timings]
    assert measured[0] == ("torch", "fp32")
    assert {("openvino", "fp32"), ("onnx", "fp32")} < set(measured)
    assert (record.model, record.batch, record.sizes) == ("asymmetry", 2, {"slices": 224, "images": 224})
    assert record.threads == torch.get_num_threads()
    for one in record.timings:
        assert all(rate > 0 for rate in one.rates.values())
        if one.precision == "fp32":
            assert one.within
            assert one.map_difference < 2e-5
    assert record.timings[0].map_difference == 0
    digest = digest_of(load_detector("asymmetry", device="cpu", precision="fp32"))
    assert read_record(digest) == record
    assert said[0] == "asymmetry: torch fp32"
    assert any("making a graph" in line for line in caplog.messages)


def test_what_is_not_installed_is_left_out_and_said(monkeypatch) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    said: list[str] = []
    record = time_backends(Asymmetry().eval(), seconds=0, say=said.append)
    assert [one.backend for one in record.timings] == ["torch"]
    assert sum(line.startswith("left out: ") and "pip install" in line for line in said) >= 2


def test_only_float32_can_be_the_measure() -> None:
    rounded = Asymmetry()
    rounded.use_precision("bf16")
    with pytest.raises(BadInput, match="in fp32"):
        time_backends(rounded)
