from __future__ import annotations

import logging

import pytest
import torch

from medzsad.backends import records, runtimes
from medzsad.backends.detector import GraphDetector
from medzsad.backends.records import Record, Timing, cpu_name, write_record
from medzsad.backends.runtimes import resolve_backend
from medzsad.backends.store import digest_of
from medzsad.detectors import devices
from medzsad.detectors.devices import float32_products, resolve_precision
from medzsad.errors import ModelNotReady
from medzsad.zoo.loading import load_detector


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all packages were there."""
    monkeypatch.setattr(runtimes, "find_spec", lambda name: name)


@pytest.mark.parametrize(
    ("backend", "device", "precision", "message"),
    [
        ("tensorrt", "auto", "auto", "unknown backend 'tensorrt'; use one of torch, openvino, onnx, auto"),
        ("onnx", "cuda", "auto", "computes on the CPU, not on 'cuda'; use `device` cpu or `backend` torch"),
        ("openvino", "cuda:1", "auto", "not on 'cuda:1'"),
        ("onnx", "cpu", "bf16", "'onnx' computes in fp32"),
        ("openvino", "cpu", "fp16", "fp16 is not computed on the CPU"),
        ("openvino", "cpu", "tf32", "tf32 needs an NVIDIA GPU of compute capability 8.0 or more, not cpu"),
        ("torch", "cpu", "tf32", "tf32 needs an NVIDIA GPU"),
        ("openvino", "cpu", "int4", "unknown precision"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_what_a_backend_cannot_do_is_one_line(backend, device, precision, message) -> None:
    with pytest.raises(ModelNotReady) as caught:
        load_detector("brightness", backend=backend, device=device, precision=precision)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("installed")
def test_precisions_of_graphs(monkeypatch) -> None:
    for precision in ("auto", "fp32"):
        for backend in ("openvino", "onnx"):
            assert resolve_backend(backend, "auto", precision) == (torch.device("cpu"), "fp32")
    monkeypatch.setattr(devices, "cpu_computes_bf16", lambda: True)
    assert resolve_backend("openvino", "cpu", "bf16")[1] == "bf16"
    monkeypatch.setattr(devices, "cpu_computes_bf16", lambda: False)
    with pytest.raises(ModelNotReady, match="does not compute bf16"):
        resolve_backend("openvino", "cpu", "bf16")


@pytest.mark.parametrize(("backend", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_a_missing_package_is_told_with_the_command(monkeypatch, backend: str, package: str) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(ModelNotReady) as caught:
        load_detector("brightness", backend=backend)
    assert f'pip install "medzsad[{backend}]" (missing: {package})' in str(caught.value)
    assert load_detector("brightness", backend="torch").method == "brightness"


@pytest.mark.usefixtures("cache_dir")
def test_auto_takes_what_was_measured_and_pytorch_before(monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO, logger="medzsad")

    def load(**options):
        caplog.clear()
        return load_detector("brightness", device="cpu", backend="auto", **options)

    assert not isinstance(load(), GraphDetector)
    assert caplog.messages == [
        "backend: torch (not measured on this machine; medzsad models time brightness measures)"
    ]
    rows = [Timing("torch", "fp32", {"images": 1.0}, 0, 0), Timing("onnx", "fp32", {"images": 3.0}, 0, 0)]
    digest = digest_of(load())
    write_record(digest, Record("brightness", cpu_name(), 1, 1, {"images": 224}, tuple(rows)))
    pytest.importorskip("onnxruntime")
    detector = load()
    assert detector.settings["backend"] == "onnx"
    assert caplog.messages == [
        "backend: onnx fp32 (the fastest measured on this machine: 3 images/s, 3.00 times torch fp32)"
    ]
    assert not isinstance(load(precision="bf16"), GraphDetector)
    assert caplog.messages == ["backend: torch (nothing measured in bf16 is within the bounds)"]
    monkeypatch.setattr(records, "cpu_name", lambda: "another")
    assert not isinstance(load(), GraphDetector)


def test_tf32_is_for_gpus_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert resolve_precision("tf32", gpu) == "tf32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ModelNotReady, match="tf32 needs an NVIDIA GPU"):
        resolve_precision("tf32", gpu)


def float32_switches() -> tuple[bool, bool]:
    """Whether a GPU multiplies float32 matrices, and convolves, in TF32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):
        return matmul.fp32_precision == "tf32", cudnn.conv.fp32_precision == "tf32"
    return matmul.allow_tf32, cudnn.allow_tf32


@pytest.mark.parametrize(("precision", "inside"), [("fp32", False), ("tf32", True)])
@pytest.mark.parametrize("before", ["highest", "high"])
def test_float32_on_a_gpu_is_what_its_name_says(precision: str, inside: bool, before: str) -> None:
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        outside = float32_switches()
        assert outside == (before == "high", True)  # PyTorch's own: convolutions in TF32 unasked
        with float32_products(precision, torch.device("cuda")):
            assert float32_switches() == (inside, inside)
        assert float32_switches() == outside
        for other, device in ((precision, "cpu"), ("bf16", "cuda"), ("fp16", "cuda")):
            with float32_products(other, torch.device(device)):
                assert float32_switches() == outside
    finally:
        torch.set_float32_matmul_precision(former)
