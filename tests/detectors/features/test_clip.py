"""Patch tokens of a CLIP, on a small one with random weights."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from small_detectors import CLIP_CONFIG, clip_weights  # noqa: F401 - a fixture
from torch import Tensor

from medzsad.detectors.features.base import build_features
from medzsad.detectors.features.clip import CLIPFeatures
from medzsad.errors import ModelNotReady


@pytest.fixture
def features(clip_weights: Path) -> CLIPFeatures:  # noqa: F811
    return build_features("clip:small", weights=clip_weights, backbone=CLIP_CONFIG)


def test_dimensions_and_own_size(features: CLIPFeatures, clip_weights: Path, photos: Tensor) -> None:  # noqa: F811
    assert features.image_size == 56
    found = features(photos[..., :56, :56])
    assert [tuple(f.shape[1:]) for f in found] == [(128, 4, 4)] * 3  # layers 2, 3 and 4
    assert all(f.dtype == torch.float32 for f in found)
    larger = build_features("clip:small", image_size=112, weights=clip_weights, backbone=CLIP_CONFIG)
    assert larger(photos[..., :112, :112])[0].shape[2:] == (8, 8)
    assert larger.digest == features.digest


def test_numbers_are_those_of_open_clips_own_tower(features: CLIPFeatures, photos: Tensor) -> None:
    reference = open_clip.CLIP(**CLIP_CONFIG).eval()
    reference.visual.load_state_dict(features.clip.visual.state_dict())
    normalised = (photos[..., :56, :56] - features.mean) / features.std
    with torch.no_grad():
        theirs = reference.visual.forward_intermediates(
            normalised, indices=[1, 2, 3], normalize_intermediates=True
        )["image_intermediates"]
    for one, other in zip(features.layers(normalised), theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_missing_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotReady, match="clip:small features: no weights"):
        build_features("clip:small", backbone=CLIP_CONFIG)
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "foreign.pt")
    with pytest.raises(ModelNotReady, match=r"foreign.pt: holds no CLIP weights"):
        build_features("clip:small", weights=tmp_path / "foreign.pt", backbone=CLIP_CONFIG)


def test_a_size_that_is_no_multiple_of_the_patch_is_refused(clip_weights: Path) -> None:  # noqa: F811
    with pytest.raises(ModelNotReady, match="image_size 60 must be a positive multiple of 14"):
        build_features("clip:small", image_size=60, weights=clip_weights, backbone=CLIP_CONFIG)
