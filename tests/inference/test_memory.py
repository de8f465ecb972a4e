"""300 slices at 518 px under a hard limit of memory, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SLICES, SIDE = 300, 518
LIMIT = 2 << 30
"""Bytes that the process may allocate: two volumes of float32 (scan and map) are 0.6 of them."""

CHILD = f"""
import resource
import numpy as np, torch
from medzsad.detectors.headclip.anomalyclip import AnomalyCLIP
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.inference.slicewise import SliceWisePredictor
from medzsad.scans.slices import Plane

resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT}))
torch.set_num_threads(2)
clip = {{
    "embed_dim": 32,
    "vision_cfg": {{"image_size": 336, "layers": 4, "width": 64, "patch_size": 14}},
    "text_cfg": {{"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 4}},
}}
settings = HeadCLIPSettings(backbone=clip, clip_weights=None, image_size={SIDE}, deep_depth=3)
detector = AnomalyCLIP.build(settings, with_text_tower=False).requires_grad_(False)
volume = np.random.default_rng(0).random(({SIDE}, {SIDE}, {SLICES}), dtype=np.float32)
output = SliceWisePredictor(Plane.AXIAL, (1.0, 1.0, 1.0))(volume, detector)
assert output.anomaly_map.shape == volume.shape and len(output.indices) == {SLICES}
try:
    np.ones({LIMIT}, dtype=np.uint8)
except MemoryError:
    print("the limit holds")
# Of this program alone: getrusage also counts what the process held that started it.
status = open("/proc/self/status").read()
print(1024 * int(status.split("VmHWM:")[1].split()[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts what a process maps on Linux alone")
def test_300_slices_at_518_px_stay_below_2_gib() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the limit holds" in done.stdout
    assert int(done.stdout.split()[-1]) < LIMIT
