"""Small detectors of every method that can be a graph, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.headclip.anomalyclip import AnomalyCLIP
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.references import Asymmetry, Brightness, Darkness
from medzsad.detectors.zero_shot.plain_clip import PlainCLIP
from medzsad.detectors.zero_shot.settings import PlainCLIPSettings, WinCLIPSettings
from medzsad.detectors.zero_shot.winclip import WinCLIP

CLIP: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 56, "layers": 2, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
COMMON: dict[str, Any] = {"backbone": CLIP, "clip_weights": None, "image_size": 42}
NETWORK = {"widths": (8, 8, 16, 16), "depth": 1, "heads": 2, "pixel_width": 8}
CALIBRATION = {
    kind: {name: (slope, 0.1) for name in ("map", "score", "probability")}
    for kind, slope in (("grey", 1.5), ("colour", 0.7), ("ultrasound", 0.8), ("slice", 1.1))
}
MAKERS: dict[str, Callable[[], AnomalyDetector]] = {
    "mini": lambda: MedzsadMini(
        image_size=64, slice_size=80, network=NETWORK, colour=True, calibration=CALIBRATION
    ),
    "mini-slices": lambda: MedzsadMini(
        image_size=64, slice_size=80, network=NETWORK, colour=True, neighbour_mm=3.0, calibration=CALIBRATION
    ),
    "mini-lite0": lambda: MedzsadMini(
        image_size=48,
        network=NETWORK,
        colour="lite0",
        photographs=True,
        colour_threshold=0.3,
        ultrasound=True,
        ultrasound_threshold=0.4,
        calibration=CALIBRATION,
    ),
    "mini-grey": lambda: MedzsadMini(image_size=32, network=NETWORK, flip=False),
    "headclip": lambda: HeadCLIP.build(
        HeadCLIPSettings(**COMMON, patch_layers=(1, 2), deep_depth=1, pool="top", smoothing_sigma=1.0)
    ),
    "anomalyclip": lambda: AnomalyCLIP.build(HeadCLIPSettings(**COMMON, deep_depth=1), with_text_tower=False),
    "adaclip": lambda: AdaCLIP.build(
        AdaCLIPSettings(**COMMON, output_layers=(1, 2), prompt_depth=2, prompt_length=2, fusion="off")
    ),
    "winclip": lambda: WinCLIP.build(WinCLIPSettings(**COMMON, scales=(2,))),
    "clip": lambda: PlainCLIP.build(PlainCLIPSettings(**COMMON, dense="vv")),
    "brightness": lambda: Brightness(),
    "darkness": lambda: Darkness(),
    "asymmetry": lambda: Asymmetry(),
}


def fused_adaclip() -> AdaCLIP:
    """AdaCLIP with the published k-means, which no graph can hold."""
    return AdaCLIP.build(AdaCLIPSettings(**COMMON, output_layers=(1, 2), prompt_depth=2, prompt_length=2))


def make(name: str) -> AnomalyDetector:
    """A detector of :data:`MAKERS`, as if trained, the same at each call."""
    torch.manual_seed(0)
    detector = MAKERS[name]().eval().requires_grad_(False)
    if type(detector) is HeadCLIP:
        for parameter in detector.head_weights.parameters():
            parameter.copy_(0.5 + torch.rand(parameter.shape))
    detector.name, detector.seen = f"our-{name}", ("visa",)
    return detector
