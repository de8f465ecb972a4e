"""DINOv2's features, on small networks of its kind with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medzsad.detectors.features import vit
from medzsad.detectors.features.base import build_features
from medzsad.errors import ModelNotReady
from medzsad.zoo.convert import recognise

TINY: dict[str, Any] = {
    "model_name": "vit_small_patch14_dinov2",
    "embed_dim": 48,
    "depth": 8,
    "num_heads": 3,
}


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A small DINOv2 for 56 pixels, as timm builds it, with weights that matter everywhere."""
    monkeypatch.setitem(vit.ARCHITECTURES, "dinov2-s14", TINY)
    torch.manual_seed(1)
    built = timm.create_model(**TINY, pretrained=False, num_classes=0, img_size=56).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


@pytest.fixture
def weights(network: nn.Module, tmp_path: Path) -> Path:
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_dimensions_and_names(photos: Tensor, weights: Path) -> None:
    features = build_features("dinov2-s14", image_size=84, weights=weights)
    found = features(photos[..., :84, :84])
    assert [tuple(f.shape[1:]) for f in found] == [(48, 6, 6)] * 4
    assert all(f.dtype == torch.float32 for f in found)
    assert not any(p.requires_grad for p in features.parameters())
    assert build_features("dinov2-s14", weights=weights).image_size == 448


def test_numbers_are_those_of_timms_own_forward(network: nn.Module, photos: Tensor, weights: Path) -> None:
    features = build_features("dinov2-s14", image_size=56, weights=weights)
    normalised = (photos[..., :56, :56] - features.mean) / features.std
    mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    assert torch.equal(features.mean[0], mean)
    found = features.layers(normalised)
    with torch.no_grad():
        last = network.forward_features(normalised)[:, 1:]
        assert torch.equal(found[-1].flatten(2).transpose(1, 2), last)
        tokens = network._pos_embed(network.patch_embed(normalised))
        for block in network.blocks[:4]:
            tokens = block(tokens)
    assert torch.equal(found[0].flatten(2).transpose(1, 2), network.norm(tokens)[:, 1:])


def test_another_size_is_resized_as_timm_does(photos: Tensor, weights: Path) -> None:
    source = {"file": str(weights), "num_classes": 0}
    larger = timm.create_model(**TINY, pretrained=True, pretrained_cfg_overlay=source, img_size=112)
    features = build_features("dinov2-s14", image_size=112, weights=weights)
    normalised = (photos[..., :112, :112] - features.mean) / features.std
    with torch.no_grad():
        expected = larger.eval().forward_features(normalised)[:, 1:]
    assert torch.equal(features.layers(normalised)[-1].flatten(2).transpose(1, 2), expected)


def test_the_authors_layout_gives_the_same(
    network: nn.Module, photos: Tensor, weights: Path, tmp_path: Path
) -> None:
    theirs = {**network.state_dict(), "mask_token": torch.zeros(1, 48)}
    torch.save(theirs, tmp_path / "pretrain.pth")
    ours = build_features("dinov2-s14", image_size=56, weights=weights)
    other = build_features("dinov2-s14", image_size=56, weights=tmp_path / "pretrain.pth")
    assert ours.digest == other.digest
    for one, two in zip(ours(photos[..., :56, :56]), other(photos[..., :56, :56]), strict=True):
        assert torch.equal(one, two)
    assert recognise(tmp_path / "pretrain.pth").kind == "features"


def test_the_digest_is_of_the_weights_not_of_the_size(weights: Path) -> None:
    small, large = (build_features("dinov2-s14", image_size=s, weights=weights) for s in (56, 112))
    assert small.digest == large.digest


def test_missing_foreign_and_damaged_weights_are_refused(network: nn.Module, tmp_path: Path) -> None:
    def build(weights: Path | None, image_size: int = 56) -> None:
        build_features("dinov2-s14", image_size=image_size, weights=weights)

    with pytest.raises(ModelNotReady, match="dinov2-s14 features: no weights"):
        build(None)
    with pytest.raises(ModelNotReady, match="no such file"):
        build(tmp_path / "none.pth")
    foreign = tmp_path / "foreign.pth"
    torch.save({"layer.weight": torch.zeros(3)}, foreign)
    with pytest.raises(ModelNotReady, match=r"foreign.pth: not the weights of dinov2-s14: pos_embed missing"):
        build(foreign)
    wider = timm.create_model(**TINY | {"embed_dim": 96}, pretrained=False, num_classes=0, img_size=56)
    save_file(wider.state_dict(), tmp_path / "wider.safetensors")
    with pytest.raises(ModelNotReady, match=r"not the weights of dinov2-s14: cls_token is \(1, 1, 96\)"):
        build(tmp_path / "wider.safetensors")
    damaged = tmp_path / "damaged.pth"
    torch.save(network.state_dict(), damaged)
    damaged.write_bytes(damaged.read_bytes()[:9000])
    with pytest.raises(ModelNotReady, match="damaged"):
        build(damaged)
    with pytest.raises(ModelNotReady, match="image_size 60 must be a positive multiple of 14"):
        build(foreign, 60)
    with pytest.raises(ModelNotReady, match="MEDZSAD_MAX_PIXELS"):
        build(foreign, 14 * 10**6)


def test_the_two_networks_are_timms() -> None:
    for name, (width, depth) in {"dinov2-s14": (384, 12), "dinov2-b14": (768, 12)}.items():
        with torch.device("meta"):
            network = timm.create_model(**vit.ARCHITECTURES[name], pretrained=False, num_classes=0)
        assert (network.embed_dim, len(network.blocks)) == (width, depth)
        config = network.pretrained_cfg
        assert (config["mean"], config["std"]) == (vit.MEAN, vit.STD)
