"""Small detectors that can be trained within seconds: a CLIP of 4 layers, 2 heads and 5x5 patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.headclip.anomalyclip import AnomalyCLIP
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.detectors.headclip.settings import HeadCLIPSettings

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 56, "layers": 4, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 4},
}
HEADCLIP_SETTINGS = HeadCLIPSettings(
    backbone=CLIP_CONFIG,
    clip_weights=None,
    image_size=70,
    patch_layers=(2, 4),
    vv_start=2,
    deep_depth=3,
    smoothing_sigma=1.0,
)
ADACLIP_SETTINGS = AdaCLIPSettings(
    backbone=CLIP_CONFIG,
    clip_weights=None,
    image_size=70,
    prompt_depth=3,
    prompt_length=2,
    clusters=4,
    smoothing_sigma=1.0,
)

BuildDetector = Callable[..., HeadCLIP | AnomalyCLIP | AdaCLIP]


@pytest.fixture(scope="session")
def clip_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the weights of a small CLIP, with its text tower."""
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(FrozenCLIP.build(CLIP_CONFIG, None, text=True).state_dict(), path)
    return path


@pytest.fixture
def build_detector(clip_weights: Path) -> BuildDetector:
    """Builds an untrained small detector: ``build_detector("headclip", vv_start=3)``; always the same one."""

    def build(method: str, **changes: Any) -> HeadCLIP | AnomalyCLIP | AdaCLIP:
        torch.manual_seed(0)
        if method == "adaclip":
            return AdaCLIP.build(replace(ADACLIP_SETTINGS, **changes), clip_weights=clip_weights)
        kind = {"headclip": HeadCLIP, "anomalyclip": AnomalyCLIP}[method]
        return kind.build(replace(HEADCLIP_SETTINGS, **changes), clip_weights=clip_weights)

    return build


@pytest.fixture
def small_headclip(build_detector: BuildDetector) -> HeadCLIP:
    return build_detector("headclip")


@pytest.fixture
def small_anomalyclip(build_detector: BuildDetector) -> AnomalyCLIP:
    return build_detector("anomalyclip")


@pytest.fixture
def small_adaclip(build_detector: BuildDetector) -> AdaCLIP:
    return build_detector("adaclip")


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Two normalised images of 70 px, the second anomalous."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.zeros(2, 70, 70)
    mask[1, 20:50, 30:60] = 1
    image = torch.randn(2, 3, 70, 70, generator=generator)
    image[1] += mask[1]
    return {"image": image, "mask": mask, "label": torch.tensor([0, 1])}
