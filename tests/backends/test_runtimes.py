"""What runs graphs, apart from their numbers (test_detector.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

SIGNALLED = """
import gc, signal
import torch
from medzsad.zoo.loading import load_detector

detector = load_detector("brightness", backend="openvino", device="cpu")
detector(torch.rand(1, 3, 64, 64))
del detector
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed (medzsad[openvino])")
def test_a_signal_after_a_graph_of_openvino_is_handled(tmp_path) -> None:
    environment = os.environ | {"MEDZSAD_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", SIGNALLED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize(("backend", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_runtimes_report_nothing_and_leave_no_files(tmp_path, backend: str, package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed (medzsad[{backend}])")
    opened = (
        "import contextlib, sys; from pathlib import Path; from medzsad.backends.runtimes import open_graph\n"
    )
    opened += f"with contextlib.suppress(Exception): open_graph(Path('none.onnx'), {backend!r})\n"
    opened += f"assert {package!r} in sys.modules and 'openvino_telemetry' not in sys.modules"
    environment = {
        key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "CI")
    }
    environment |= {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    subprocess.run([sys.executable, "-c", opened], env=environment, check=True)
    wanted = ("*onnxruntime*", ".ses", "*openvino_ga*", "intel")
    assert [path for pattern in wanted for path in tmp_path.rglob(pattern)] == []
