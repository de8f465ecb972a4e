"""The HeadCLIP detector on a tiny CLIP; its numbers against the published code are in clip/test_parity.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.clip import backbone
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.headclip.model import HeadCLIP, HeadCLIPSettings
from medzsad.detectors.headclip.prompts import HeadWeights
from medzsad.detectors.registry import detector_class
from medzsad.errors import ModelNotReady
from medzsad.zoo.loading import load_detector

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 56, "layers": 4, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 4},
}
SETTINGS = HeadCLIPSettings(
    backbone=CONFIG,
    clip_weights=None,
    image_size=70,
    patch_layers=(2, 4),
    vv_start=2,
    deep_depth=3,
    smoothing_sigma=1.0,
)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(FrozenCLIP.build(CONFIG, None, text=True).state_dict(), path)
    return path


def build(weights_file: Path, **changes: Any) -> HeadCLIP:
    torch.manual_seed(0)
    return HeadCLIP.build(replace(SETTINGS, **changes), clip_weights=weights_file)


@pytest.fixture
def detector(weights_file: Path) -> HeadCLIP:
    """As if trained: head weights other than 1."""
    detector = build(weights_file)
    with torch.no_grad():
        for parameter in detector.head_weights.parameters():
            parameter.copy_(0.5 + torch.rand(parameter.shape))
    return detector


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 50, 60, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(2, 3, 70, 70, generator=torch.Generator().manual_seed(2))


def test_it_is_registered() -> None:
    assert detector_class("headclip") is HeadCLIP


def test_prediction_has_the_promised_shapes_and_ranges(detector: HeadCLIP, images: Tensor) -> None:
    prediction = detector(images)
    assert prediction.anomaly_map.shape == (2, 50, 60)
    assert prediction.image_score.shape == prediction.image_probability.shape == (2,)
    for tensor in prediction:
        assert tensor.dtype == torch.float32
        assert tensor.min() >= 0
        assert tensor.max() <= 1
    assert prediction.anomaly_map.std() > 0


@torch.inference_mode()
def test_joint_score_uses_the_smoothed_map(weights_file: Path, inputs: Tensor) -> None:
    maps, score, probability = build(weights_file, joint_weight=0.25).detect(inputs)
    torch.testing.assert_close(score, 0.75 * probability + 0.25 * maps.amax((1, 2)))
    maps, score, probability = build(weights_file, joint_weight=1.0, pool="top", pool_percent=10).detect(
        inputs
    )
    torch.testing.assert_close(score, maps.flatten(1).topk(490).values.mean(1))
    _, score, probability = build(weights_file, joint_weight=0.0).detect(inputs)
    torch.testing.assert_close(score, probability)


@torch.inference_mode()
def test_head_weights_of_one_are_the_pretrained_tower(weights_file: Path, inputs: Tensor) -> None:
    detector = build(weights_file)
    image, patches = detector.encode_images(inputs)
    clip = detector.clip
    run = clip.run_blocks(clip.embed(inputs), layers=(2, 4), vv_start=2, class_only=True)
    assert torch.equal(image, run.tokens[:, 0] @ clip.visual.proj)
    for layer, features in patches.items():
        assert torch.equal(features, clip.project(run.layers[layer]))


@pytest.mark.parametrize("path", ["patch", "image"])
@torch.inference_mode()
def test_each_path_has_its_own_weights(weights_file: Path, inputs: Tensor, path: str) -> None:
    detector = build(weights_file)
    image, patches = detector.encode_images(inputs)
    getattr(detector.head_weights, path)[-1, 1] = 0  # the last layer's second head
    changed_image, changed_patches = detector.encode_images(inputs)
    assert torch.equal(changed_image, image) == (path == "patch")
    assert torch.equal(changed_patches[4], patches[4]) == (path == "image")
    assert torch.equal(changed_patches[2], patches[2])


@pytest.mark.parametrize("parametrisation", ["raw", "softmax", "sigmoid"])
def test_every_parametrisation_starts_at_one_and_trains(parametrisation: str) -> None:
    weights = HeadWeights((1, 3, 4), 5, vv_start=3, parametrisation=parametrisation)
    patch, image = weights.scales("patch"), weights.scales("image")
    assert list(patch) == [3, 4]
    assert list(image) == [1, 3, 4]
    for scale in (*patch.values(), *image.values()):
        torch.testing.assert_close(scale, torch.ones(5))
    (patch[4][0] + image[1][2]).backward()
    assert weights.patch.grad[1, 0] != 0
    assert weights.image.grad[0, 2] != 0
    assert HeadWeights((1,), 5, vv_start=1, paths="image").scales("patch") == {}


@pytest.mark.parametrize("paths", ["patch+image", "patch", "image"])
def test_gradients_reach_what_is_learned_and_nothing_else(
    weights_file: Path, inputs: Tensor, paths: str
) -> None:
    detector = build(weights_file, head_paths=paths)
    comparison = detector.train().compare(inputs)
    maps = torch.stack(list(comparison.patch_probabilities.values()))
    loss = comparison.image_logits[:, 1].sum() + maps[:, :, 1].square().sum()
    loss.backward()
    for parameter in detector.trainable_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    for layer_grads in detector.head_weights.parameters():
        assert layer_grads.grad.abs().amin() > 0
    assert all(p.grad is None and not p.requires_grad for p in detector.clip.parameters())
    learned = {id(p) for p in detector.parameters() if p.requires_grad}
    assert learned == {id(p) for p in detector.trainable_parameters()}


def test_a_training_step_changes_the_prediction(weights_file: Path, images: Tensor) -> None:
    detector = build(weights_file)
    before = detector(images)
    optimiser = torch.optim.Adam(detector.trainable_parameters(), lr=1e-2)
    comparison = detector.compare(detector.preprocess(images))
    torch.nn.functional.cross_entropy(comparison.image_logits, torch.tensor([0, 1])).backward()
    optimiser.step()
    assert not torch.equal(detector(images).image_probability, before.image_probability)


def test_a_checkpoint_predicts_the_same_without_a_text_tower(
    detector: HeadCLIP, weights_file: Path, images: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "headclip.safetensors"
    detector.threshold = 0.3
    save_checkpoint(detector.to_checkpoint(), path)
    loaded = load_detector(path, device="cpu", precision="fp32", clip_weights=weights_file)
    assert isinstance(loaded, HeadCLIP)
    assert loaded.clip.text is None
    assert not any(name.startswith("clip.text") for name in loaded.state_dict())
    assert (loaded.threshold, loaded.config) == (0.3, detector.config)
    for ours, stored in zip(loaded(images), detector(images), strict=True):
        assert torch.equal(ours, stored)
    again = loaded.to_checkpoint()
    for name, tensor in detector.to_checkpoint().tensors.items():
        assert torch.equal(again.tensors[name], tensor), name
    assert not any(name.startswith("clip") for name in again.tensors)
    further = HeadCLIP.from_checkpoint(read_checkpoint(path), clip_weights=weights_file, with_text_tower=True)
    torch.testing.assert_close(further.encode_texts(), loaded.text_features)
    assert torch.equal(further(images).anomaly_map, loaded(images).anomaly_map)


def test_predicting_never_builds_a_text_tower(
    detector: HeadCLIP, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = detector.to_checkpoint()
    built: list[Mapping[str, Any]] = []
    original = backbone.open_clip.CustomTextCLIP
    monkeypatch.setattr(
        backbone.open_clip,
        "CustomTextCLIP",
        lambda **arguments: built.append(arguments["text_cfg"]) or original(**arguments),
    )
    HeadCLIP.from_checkpoint(checkpoint, clip_weights=weights_file)
    assert [text_cfg["layers"] for text_cfg in built] == [1]


def test_the_checkpoints_own_weights_are_used_by_default(detector: HeadCLIP, weights_file: Path) -> None:
    checkpoint = detector.to_checkpoint()
    with pytest.raises(ModelNotReady, match="names no CLIP weights"):
        HeadCLIP.from_checkpoint(checkpoint)
    named = replace(checkpoint, settings=checkpoint.settings | {"clip_weights": str(weights_file)})
    assert HeadCLIP.from_checkpoint(named).clip.fingerprint() == detector.clip.fingerprint()


def test_other_clip_weights_are_noticed_but_half_precision_is_not(
    detector: HeadCLIP, weights_file: Path
) -> None:
    checkpoint = detector.to_checkpoint()
    same = {name: tensor.half() for name, tensor in detector.clip.state_dict().items()}
    HeadCLIP.from_checkpoint(checkpoint, clip_weights=same)
    other = FrozenCLIP.build(CONFIG, None, seed=9).state_dict()
    with pytest.raises(ModelNotReady, match="not those that the detector was trained with"):
        HeadCLIP.from_checkpoint(checkpoint, clip_weights=other)


def spoil(checkpoint: Checkpoint, kind: str) -> Checkpoint:
    tensors, settings = dict(checkpoint.tensors), dict(checkpoint.settings)
    if kind == "method":
        return replace(checkpoint, method="mini")
    if kind == "setting":
        settings["colour"] = "red"
    elif kind == "layers":
        settings["patch_layers"] = [5]
    elif kind == "texts":
        del tensors["text_features"]
    elif kind == "text size":
        tensors["text_features"] = torch.zeros(2, 8)
    elif kind == "heads":
        tensors["head_weights.patch"] = torch.ones(3, 7)
    elif kind == "prompts":
        del tensors["prompts.ctx_neg"]
    return replace(checkpoint, tensors=tensors, settings=settings)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("method", "method 'mini'"),
        ("setting", "unknown HeadCLIP settings: colour"),
        ("layers", "from 1 to 4"),
        ("texts", "no text_features"),
        ("text size", "do not fit"),
        ("heads", "head weights do not fit"),
        ("prompts", "no complete prompts"),
    ],
)
def test_checkpoints_that_do_not_fit_say_so(
    detector: HeadCLIP, weights_file: Path, kind: str, message: str
) -> None:
    with pytest.raises(ModelNotReady, match=message) as caught:
        HeadCLIP.from_checkpoint(spoil(detector.to_checkpoint(), kind), clip_weights=weights_file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 72}, "multiple"),
        ({"patch_layers": ()}, "at least one"),
        ({"patch_layers": (0,)}, "from 1 to 4"),
        ({"vv_start": 9}, "from 1 to 4"),
        ({"head_layers": (1,)}, "weighted path"),
        ({"head_paths": "text"}, "head_paths"),
        ({"head_parametrisation": "tanh"}, "head_parametrisation"),
        ({"pool": "median"}, "pool"),
        ({"pool_percent": 0}, "pool_percent"),
        ({"joint_weight": 1.5}, "joint_weight"),
        ({"temperature": 0}, "temperature"),
        ({"smoothing_sigma": -1}, "smoothing_sigma"),
        ({"position_mode": "nearest"}, "position_mode"),
        ({"deep_depth": 8}, "reach block 9 of 4"),
    ],
)
def test_impossible_settings_say_so(weights_file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelNotReady, match=message):
        build(weights_file, **changes)


def test_defaults_follow_the_depth_of_the_backbone(weights_file: Path) -> None:
    config = build(weights_file, patch_layers=None, vv_start=None).config
    assert (config.vv_start, config.patch_layers, config.head_layers) == (1, (4,), (1, 2, 3, 4))
    assert config.quick_gelu is False


def test_settings_name_a_weights_file_without_its_folder(detector: HeadCLIP) -> None:
    detector.config = replace(detector.config, clip_weights="/home/someone/study 7/tiny.safetensors")
    assert detector.settings["clip_weights"] == "tiny.safetensors"
    assert detector.to_checkpoint().settings["clip_weights"] == "/home/someone/study 7/tiny.safetensors"


def test_settings_are_reported(detector: HeadCLIP) -> None:
    settings = detector.settings
    assert settings["precision"] == "fp32"
    assert settings["image_size"] == 70
    assert settings["backbone"] == CONFIG


def test_without_text_features_a_text_tower_is_needed(weights_file: Path) -> None:
    with pytest.raises(ModelNotReady, match="text features"):
        HeadCLIP(FrozenCLIP.build(CONFIG, weights_file), SETTINGS)


@torch.inference_mode()
def test_bf16_predictions_stay_close(detector: HeadCLIP, images: Tensor) -> None:
    exact = detector(images)
    detector.precision = "bf16"
    rough = detector(images)
    assert (rough.anomaly_map - exact.anomaly_map).abs().max() < 0.1
    assert (rough.image_probability - exact.image_probability).abs().max() < 0.1
