"""AnomalyCLIP as a detector of its own; the numbers of its parts are compared in clip/test_parity.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from medzsad.detectors.checkpoint import save_checkpoint
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.headclip.anomalyclip import AnomalyCLIP
from medzsad.detectors.headclip.model import HeadCLIP, HeadCLIPSettings
from medzsad.detectors.headclip.prompts import PromptLearner
from medzsad.detectors.registry import detector_class
from medzsad.errors import ModelNotReady
from medzsad.zoo.loading import load_detector

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 56, "layers": 4, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 4},
}
SETTINGS = HeadCLIPSettings(
    backbone=CONFIG, clip_weights=None, image_size=70, patch_layers=(2, 4), deep_depth=3
)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(FrozenCLIP.build(CONFIG, None, text=True).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts in the layout of the published checkpoints."""
    torch.manual_seed(5)
    prompts = PromptLearner(64, deep_depth=3).state_dict()
    path = tmp_path_factory.mktemp("prompts") / "epoch_15.pth"
    torch.save({"prompt_learner": {name: 10 * tensor for name, tensor in prompts.items()}}, path)
    return path


@pytest.fixture
def detector(weights_file: Path, published: Path) -> AnomalyCLIP:
    return AnomalyCLIP.from_anomalyclip(published, SETTINGS, clip_weights=weights_file)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 50, 60, generator=torch.Generator().manual_seed(2))


def test_it_is_headclip_with_weights_1_and_joint_weight_0(
    detector: AnomalyCLIP, weights_file: Path, published: Path, images: Tensor
) -> None:
    assert detector_class("anomalyclip") is AnomalyCLIP
    config = replace(SETTINGS, joint_weight=0.0)
    same = HeadCLIP.from_anomalyclip(published, config, clip_weights=weights_file)
    prediction = detector(images)
    for ours, theirs in zip(prediction, same(images), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(prediction.image_score, prediction.image_probability)
    joint = HeadCLIP.from_anomalyclip(published, SETTINGS, clip_weights=weights_file)(images)
    assert torch.equal(prediction.anomaly_map, joint.anomaly_map)
    assert not torch.equal(prediction.image_score, joint.image_score)


def test_assembling_gives_the_same(
    detector: AnomalyCLIP, weights_file: Path, published: Path, images: Tensor, tmp_path: Path
) -> None:
    settings = {
        "backbone": CONFIG,
        "clip_weights": None,
        "image_size": 70,
        "patch_layers": [2, 4],
        "deep_depth": 3,
    }
    built = AnomalyCLIP.assemble(settings, clip_weights=weights_file, adapter=published)
    assert torch.equal(built(images).anomaly_map, detector(images).anomaly_map)
    copy = tmp_path / "prompts.safetensors"
    tensors = torch.load(published, weights_only=True)["prompt_learner"]
    save_file({f"prompt_learner.{name}": tensor for name, tensor in tensors.items()}, copy)
    again = AnomalyCLIP.assemble(settings, clip_weights=weights_file, adapter=copy)
    assert torch.equal(again(images).anomaly_map, detector(images).anomaly_map)
    with pytest.raises(ModelNotReady, match="learned prompts"):
        AnomalyCLIP.assemble(settings, clip_weights=weights_file)
    with pytest.raises(ModelNotReady, match="object-agnostic"):
        AnomalyCLIP.assemble(settings, clip_weights=weights_file, adapter=published, organ="brain")


def test_only_prompts_train(weights_file: Path) -> None:
    detector = AnomalyCLIP.build(SETTINGS, clip_weights=weights_file)
    learned = {id(p) for p in detector.parameters() if p.requires_grad}
    assert learned == {id(p) for p in detector.trainable_parameters()}
    assert learned == {id(p) for p in detector.prompts.parameters()}


def test_checkpoints(detector: AnomalyCLIP, weights_file: Path, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(detector.to_checkpoint(), path)
    loaded = load_detector(path, device="cpu", precision="fp32", clip_weights=weights_file)
    assert isinstance(loaded, AnomalyCLIP)
    for ours, stored in zip(loaded(images), detector(images), strict=True):
        assert torch.equal(ours, stored)
    checkpoint = detector.to_checkpoint()
    changed = {**checkpoint.tensors, "head_weights.patch": 2 * checkpoint.tensors["head_weights.patch"]}
    with pytest.raises(ModelNotReady, match="HeadCLIP"):
        AnomalyCLIP.from_checkpoint(replace(checkpoint, tensors=changed), clip_weights=weights_file)
