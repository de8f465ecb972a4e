"""EfficientNet-Lite0's features."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medzsad.detectors.features.base import build_features
from medzsad.detectors.features.lite0 import ARCHITECTURE, EMBEDDED, STAGES, Lite0Features
from medzsad.errors import ModelNotReady
from medzsad.zoo.catalogue import weights_folder

EMBEDDED_PATH = weights_folder() / EMBEDDED


@pytest.fixture(scope="module")
def lite0() -> Lite0Features:
    return build_features("lite0", image_size=96)


def test_dimensions_and_that_nothing_trains(lite0: Lite0Features, photos: Tensor) -> None:
    found = lite0(photos[..., :96, :96])
    assert [tuple(f.shape[1:]) for f in found] == [(40, 12, 12), (80, 6, 6), (112, 6, 6), (192, 3, 3)]
    assert all(f.dtype == torch.float32 for f in found)
    assert not any(p.requires_grad for p in lite0.parameters())
    assert not lite0.training
    assert Lite0Features.build("lite0", image_size=None, weights=None).image_size == 256


def test_the_same_twice_and_one_by_one(lite0: Lite0Features, photos: Tensor) -> None:
    images = photos[..., :96, :96]
    together, again = lite0(images), build_features("lite0", image_size=96)(images)
    for one, other, alone in zip(together, again, lite0(images[1:]), strict=True):
        assert torch.equal(one, other)
        assert torch.allclose(one[1:], alone, atol=1e-5)


def test_features_are_those_of_timms_own_network(lite0: Lite0Features, photos: Tensor) -> None:
    network = timm.create_model(ARCHITECTURE, pretrained=False, features_only=True, out_indices=(2, 3, 4))
    tensors = {name: tensor.float() for name, tensor in load_file(EMBEDDED_PATH).items()}
    own = network.state_dict()
    network.load_state_dict({name: tensors.get(name, value) for name, value in own.items()})
    normalised = (photos[..., :96, :96] - 0.5) / 0.5
    with torch.no_grad():
        # timm gives the last stage at each stride: 8 and 16; its last at 32 is beyond what we keep.
        expected = network.eval()(normalised)
        found = lite0.layers(normalised)
    assert torch.equal(found[STAGES.index(2)], expected[0])
    assert torch.equal(found[STAGES.index(4)], expected[1])


def test_foreign_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    tensors = load_file(EMBEDDED_PATH)
    partial = tmp_path / "partial.safetensors"
    save_file({name: tensors[name] for name in list(tensors)[:40]}, partial)
    with pytest.raises(ModelNotReady, match=r"partial.*not the weights of EfficientNet-Lite0.*missing"):
        build_features("lite0", weights=partial)
    wide = tmp_path / "wide.safetensors"
    save_file(tensors | {"conv_stem.weight": torch.zeros(48, 3, 3, 3)}, wide)
    with pytest.raises(
        ModelNotReady, match=r"conv_stem.weight is \(48, 3, 3, 3\), needed is \(32, 3, 3, 3\)"
    ):
        build_features("lite0", weights=wide)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(EMBEDDED_PATH.read_bytes()[:5000])
    with pytest.raises(ModelNotReady, match="damaged"):
        build_features("lite0", weights=cut)
    with pytest.raises(ModelNotReady, match="no such file"):
        build_features("lite0", weights=tmp_path / "none.safetensors")


def test_other_weights_have_another_digest(lite0: Lite0Features, tmp_path: Path) -> None:
    tensors = load_file(EMBEDDED_PATH)
    tensors["conv_stem.weight"][0, 0, 0, 0] += 1
    save_file(tensors, tmp_path / "other.safetensors")
    other = build_features("lite0", weights=tmp_path / "other.safetensors")
    assert len(other.digest) == 64
    assert other.digest != lite0.digest
    assert build_features("lite0", weights=EMBEDDED_PATH).digest == lite0.digest


def test_the_card_tells_the_hash_and_the_licence_ships_with_the_package() -> None:
    card = (weights_folder() / "efficientnet-lite0.md").read_text()
    digest = hashlib.sha256(EMBEDDED_PATH.read_bytes()).hexdigest()
    assert digest in card
    assert f"{EMBEDDED_PATH.stat().st_size:,} bytes" in card
    assert "Apache License, Version 2.0" in (weights_folder() / "LICENSE-efficientnet-lite0.txt").read_text()
    project = tomllib.loads((weights_folder().parents[1] / "pyproject.toml").read_text())["project"]
    assert "medzsad/weights/LICENSE*" in project["license-files"]
    assert any(line.startswith("timm>=") for line in project["dependencies"])
