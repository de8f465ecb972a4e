"""Matrices held in bf16: the numbers of autocast, and those of float32 within the promised bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.precision import hold_matrices
from medzsad.detectors.headclip.anomalyclip import AnomalyCLIP
from medzsad.detectors.headclip.model import HeadCLIP, HeadCLIPSettings
from medzsad.detectors.zero_shot.plain_clip import PlainCLIP
from medzsad.detectors.zero_shot.settings import PlainCLIPSettings, WinCLIPSettings
from medzsad.detectors.zero_shot.winclip import WinCLIP

MAP_BOUND, SCORE_BOUND = 1e-2, 1e-3
# AdaCLIP multiplies cosines by 100 where the others divide by 0.07: errors count seven times as much, so that
# "auto" is fp32 for it.
ADACLIP_SCORE_BOUND = 3e-3
CLIP: dict[str, Any] = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 112, "layers": 12, "width": 256, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 4},
}
BACKBONE = {"backbone": CLIP, "clip_weights": None, "image_size": 140}


def head_clip() -> HeadCLIP:
    detector = HeadCLIP.build(HeadCLIPSettings(**BACKBONE, deep_depth=3), with_text_tower=False)
    with torch.no_grad():
        for parameter in detector.head_weights.parameters():
            parameter.uniform_(0.8, 1.2)
    return detector


METHODS: dict[str, Callable[[], AnomalyDetector]] = {
    "headclip": head_clip,
    "anomalyclip": lambda: AnomalyCLIP.build(
        HeadCLIPSettings(**BACKBONE, deep_depth=3), with_text_tower=False
    ),
    "adaclip": lambda: AdaCLIP.build(AdaCLIPSettings(**BACKBONE, prompt_depth=2, fusion="off")),
    "clip": lambda: PlainCLIP.build(PlainCLIPSettings(**BACKBONE)),
    "winclip": lambda: WinCLIP.build(WinCLIPSettings(**BACKBONE)),
}


@pytest.fixture
def scans() -> Tensor:
    coarse = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(4))
    return nn.functional.interpolate(coarse, (140, 140), mode="bilinear")


@pytest.mark.parametrize("method", METHODS)
def test_bf16_stays_within_the_promised_bounds_of_fp32(method: str, scans: Tensor) -> None:
    torch.manual_seed(1)
    detector = METHODS[method]().requires_grad_(False)
    exact = detector(scans)
    detector.precision = "bf16"
    cast = detector(scans)
    detector.use_precision("bf16")
    held = detector(scans)
    for ours, theirs in zip(held, cast, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(held.anomaly_map, exact.anomaly_map)
    assert float((held.anomaly_map - exact.anomaly_map).abs().max()) <= MAP_BOUND
    bound = ADACLIP_SCORE_BOUND if method == "adaclip" else SCORE_BOUND
    assert float((held.image_score - exact.image_score).abs().max()) <= bound
    assert float((held.image_probability - exact.image_probability).abs().max()) <= bound


def test_auto_is_fp32_for_methods_that_leave_the_bounds() -> None:
    leaving = {name for name in METHODS if not METHODS[name]().bounded_in_bf16}
    assert leaving == {"adaclip"}


def test_half_the_memory_and_float32_where_it_matters() -> None:
    clip = FrozenCLIP.build(CLIP, None, text=True)
    before, fingerprint = size(clip.visual), clip.fingerprint()
    hold_matrices(clip, torch.bfloat16)
    block = clip.visual.transformer.resblocks[0]
    for kept in (block.ln_1.weight, clip.visual.positional_embedding, clip.visual.proj):
        assert kept.dtype == torch.float32
    for held in (block.attn.in_proj_weight, block.attn.in_proj_bias, block.mlp.c_fc.weight):
        assert held.dtype == torch.bfloat16
        assert not held.requires_grad
    assert size(clip.visual) < 0.55 * before
    assert clip.fingerprint() == pytest.approx(fingerprint, rel=1e-3)
    hold_matrices(clip, torch.float32)
    assert size(clip.visual) == before
    clip.encode_image(torch.zeros(1, 3, 112, 112))


def size(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
