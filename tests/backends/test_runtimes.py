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
