"""EfficientNet-Lite0 without timm: the same features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medzsad.detectors.features.base import build_features
from medzsad.detectors.mini.lite0 import CHANNELS, Lite0Encoder
from medzsad.errors import ModelNotReady


def test_features_and_digest_are_those_of_timm() -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    reference = build_features("lite0", image_size=64)
    encoder = Lite0Encoder()
    with torch.inference_mode():
        expected = reference.layers((images - reference.mean) / reference.std)
        found = encoder(images)
    assert [level.shape[1:] for level in found] == [
        (channels, 64 // stride, 64 // stride)
        for channels, stride in zip(CHANNELS, (2, 4, 8, 16, 16, 32), strict=True)
    ]
    for one, other in zip(found[2:], expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=0)
    assert encoder.digest == reference.digest
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_it_computes_in_float32_under_autocast() -> None:
    images, encoder = torch.rand(1, 3, 32, 32), Lite0Encoder()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = encoder(images)
    with torch.inference_mode():
        assert all(torch.equal(one, other) for one, other in zip(found, encoder(images), strict=True))


def test_missing_weights_are_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ModelNotReady, match="none"):
        Lite0Encoder(tmp_path / "none.safetensors")
