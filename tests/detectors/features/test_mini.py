"""The embedded detector's own features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from medzsad.detectors.checkpoint import save_checkpoint
from medzsad.detectors.features.base import build_features
from medzsad.detectors.features.mini import MiniFeatures
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.errors import ModelNotReady
from medzsad.zoo.loading import load_detector

SMALL = {"widths": (8, 8, 16, 32), "depth": 1, "heads": 2, "pixel_width": 8}


@pytest.fixture(scope="module")
def mini() -> MiniFeatures:
    return build_features("mini", image_size=96)


def test_dimensions_and_own_size(mini: MiniFeatures, photos: Tensor) -> None:
    found = mini(photos[..., :96, :96])
    assert [tuple(f.shape[1:]) for f in found] == [(224, 6, 6), (112, 12, 12), (48, 24, 24)]
    assert all(f.dtype == torch.float32 for f in found)
    assert build_features("mini").image_size == load_detector("medzsad-mini").image_size


def test_they_are_what_the_detector_decodes_from(mini: MiniFeatures, photos: Tensor) -> None:
    network = load_detector("medzsad-mini").network
    with torch.no_grad():
        levels, image = network.decoder(photos[..., :96, :96])
        decoded, same = network.decode(photos[..., :96, :96])
        found = mini.layers(photos[..., :96, :96])
    assert torch.equal(levels[-1], decoded)
    assert torch.equal(image, same)
    for one, other in zip(levels[:-1], found, strict=True):
        assert torch.equal(one, other)


def test_grey_and_colour_images_are_seen_by_one_network(mini: MiniFeatures, photos: Tensor) -> None:
    colour = photos[:1, :, :96, :96]
    grey = colour.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    for alone, beside in zip(mini(colour), mini(torch.cat([colour, grey])), strict=True):
        assert torch.allclose(alone, beside[:1], atol=1e-5)


def test_a_checkpoint_of_a_detector_like_it_is_taken(
    mini: MiniFeatures, photos: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    detector = MedzsadMini(image_size=64, network=SMALL)
    save_checkpoint(detector.to_checkpoint(), tmp_path / "own.safetensors")
    features = build_features("mini", weights=tmp_path / "own.safetensors")
    assert features.image_size == 64
    assert [f.shape[1] for f in features(photos[..., :64, :64])] == [32, 16, 8]
    assert features.digest != mini.digest


def test_bad_input_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ModelNotReady, match="image_size 100 must be a positive multiple of 16"):
        build_features("mini", image_size=100)
    other = tmp_path / "brightness.safetensors"
    save_checkpoint(load_detector("brightness").to_checkpoint(), other)
    with pytest.raises(ModelNotReady, match=r"brightness.safetensors: a checkpoint of method 'brightness'"):
        build_features("mini", weights=other)
    with pytest.raises(ModelNotReady, match="no such"):
        build_features("mini", weights=tmp_path / "none.safetensors")
