"""The AdaCLIP detector on a tiny CLIP; for parity see test_adaclip_parity.py."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.adaclip.prompts import read_published
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.checkpoint import save_checkpoint
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.registry import detector_class
from medzsad.errors import ModelNotReady
from medzsad.zoo.loading import load_detector

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 56, "layers": 4, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 4},
}
SETTINGS = AdaCLIPSettings(
    backbone=CONFIG,
    clip_weights=None,
    image_size=70,
    prompt_depth=3,
    prompt_length=2,
    clusters=4,
    smoothing_sigma=1.0,
)
COMBINATIONS = [(kind, branch) for kind in ("S", "D", "SD") for branch in ("V", "L", "VL")]


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(FrozenCLIP.build(CONFIG, None, text=True).state_dict(), path)
    return path


def build(weights_file: Path, **changes: Any) -> AdaCLIP:
    """As if trained: prompts large enough to matter."""
    torch.manual_seed(0)
    detector = AdaCLIP.build(replace(SETTINGS, **changes), clip_weights=weights_file)
    with torch.no_grad():
        for name, parameter in detector.adapter.named_parameters():
            if "static_prompts" in name:
                parameter.mul_(20)
    return detector


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 50, 60, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(2, 3, 70, 70, generator=torch.Generator().manual_seed(2))


def test_prediction_has_the_promised_shapes_and_ranges(weights_file: Path, images: Tensor) -> None:
    assert detector_class("adaclip") is AdaCLIP
    prediction = build(weights_file)(images)
    assert prediction.anomaly_map.shape == (2, 50, 60)
    assert prediction.image_score.shape == prediction.image_probability.shape == (2,)
    for tensor in prediction:
        assert tensor.dtype == torch.float32
        assert tensor.min() >= 0
        assert tensor.max() <= 1
    assert prediction.anomaly_map.std() > 0


@pytest.mark.parametrize(("kind", "branch"), COMBINATIONS)
def test_every_kind_of_prompt_trains_predicts_and_is_stored(
    weights_file: Path, images: Tensor, inputs: Tensor, tmp_path: Path, kind: str, branch: str
) -> None:
    detector = build(weights_file, prompt_type=kind, prompt_branch=branch)
    comparison = detector.compare(inputs)
    logits = [comparison.image_logits, *comparison.patch_logits.values()]
    torch.stack([(tensor[:, 1] - tensor[:, 0]).square().mean() for tensor in logits]).sum().backward()
    unused = "text_prompter.static_prompts.0"  # as in the published code
    for name, parameter in detector.adapter.named_parameters():
        assert (parameter.grad is None) == (name == unused), name
    assert all(p.grad is None for p in detector.clip.parameters())

    names = [name for name, _ in detector.adapter.named_parameters()]
    assert any("static" in name for name in names) == ("S" in kind)
    assert any("dynamic" in name for name in names) == ("D" in kind)
    assert any("visual" in name for name in names) == ("V" in branch)
    assert any("text" in name for name in names) == ("L" in branch)

    save_checkpoint(detector.to_checkpoint(), tmp_path / "a.safetensors")
    loaded = load_detector(
        tmp_path / "a.safetensors", device="cpu", precision="fp32", clip_weights=weights_file
    )
    assert (loaded.clip.text is not None) == (kind != "S" and "L" in branch)
    for ours, stored in zip(loaded(images), detector(images), strict=True):
        torch.testing.assert_close(ours, stored, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_texts_follow_weights_that_are_loaded_later(weights_file: Path, inputs: Tensor) -> None:
    detector = build(weights_file)
    frozen = detector.frozen_features(inputs)["image"]
    before = detector.encode_texts(frozen)
    other = FrozenCLIP.build(CONFIG, None, text=True, seed=1)
    detector.clip.load_state_dict(other.state_dict())
    after = detector.encode_texts(frozen)
    assert not torch.allclose(before, after)
    fresh = AdaCLIP(other, detector.config, adapter=detector.adapter)
    torch.testing.assert_close(after, fresh.encode_texts(frozen))


@torch.inference_mode()
def test_dynamic_texts_differ_from_image_to_image(weights_file: Path, inputs: Tensor) -> None:
    text = build(weights_file).encode(inputs).text
    assert (text[0] - text[1]).abs().max() > 1e-4
    text = build(weights_file, prompt_type="S").encode(inputs).text
    assert torch.equal(text[0], text[1])


@pytest.mark.parametrize("fusion", ["code", "paper", "off"])
@torch.inference_mode()
def test_a_batch_equals_its_images_one_by_one(weights_file: Path, inputs: Tensor, fusion: str) -> None:
    detector = build(weights_file, fusion=fusion)
    batch = detector.detect(inputs)
    for index in range(2):
        for ours, alone in zip(batch, detector.detect(inputs[index : index + 1]), strict=True):
            torch.testing.assert_close(ours[index : index + 1], alone, atol=1e-5, rtol=1e-4)
    assert torch.equal(batch.image_score, batch.image_probability) == (fusion == "off")


def test_the_class_name_matters_and_can_be_changed(weights_file: Path, images: Tensor) -> None:
    detector = build(weights_file, class_name="brain")
    first = detector(images)
    detector.class_name = "liver"
    assert not torch.equal(detector(images).image_probability, first.image_probability)
    detector.class_name = "brain"
    assert torch.equal(detector(images).image_probability, first.image_probability)
    with pytest.raises(ModelNotReady, match="class_name"):
        detector.class_name = " - "
    with pytest.raises(ValueError, match="too long"):
        detector.class_name = "very " * 90 + "long"
    assert detector.class_name == "brain"
    assert torch.equal(detector(images).image_probability, first.image_probability)


@pytest.mark.parametrize("kind", ["S", "SD"])
def test_detectors_for_classes_share_all_but_their_texts(
    kind: str, weights_file: Path, images: Tensor
) -> None:
    trained = build(weights_file, prompt_type=kind)
    checkpoint = trained.to_checkpoint()
    detector = AdaCLIP.from_checkpoint(checkpoint, clip_weights=weights_file)
    assert (detector.clip.text is None) == (kind == "S")
    built: list[bool] = []
    make = detector.clip.rebuild
    detector.clip.rebuild = lambda: built.append(True) or make()
    names = ["brain", "metal_nut", "liver"]
    found = detector.for_classes(names)
    assert len(built) == (kind == "S")  # once for all, and not at all where the tower is there
    assert detector.class_name == "object"
    for name, one in found.items():
        assert one.clip is detector.clip
        assert one.adapter is detector.adapter
        assert one.settings["class_name"] == one.class_name == name
        other = AdaCLIP.from_checkpoint(checkpoint, clip_weights=weights_file, class_name=name)
        assert (other.clip.text is None) == (kind == "S")
        torch.testing.assert_close(one(images).image_score, other(images).image_score, atol=1e-6, rtol=0)
    assert len({float(one(images).image_score[0]) for one in (detector, *found.values())}) == 4


def test_an_organ_gives_its_class_name(weights_file: Path, tmp_path: Path, images: Tensor) -> None:
    detector = build(weights_file)
    published = {f"clip_model.{n}": t.clone() for n, t in detector.adapter.state_dict().items()}
    torch.save(published, tmp_path / "p.pth")
    save_file(published, tmp_path / "p.safetensors")
    settings = asdict(SETTINGS)
    assembled = [
        AdaCLIP.assemble(settings, clip_weights=weights_file, adapter=tmp_path / name, organ=organ)
        for name, organ in (("p.pth", None), ("p.safetensors", None), ("p.pth", "liver"))
    ]
    assert torch.equal(assembled[0](images).image_score, detector(images).image_score)
    assert torch.equal(assembled[1](images).image_score, detector(images).image_score)
    assert assembled[0].class_name == "object"
    assert "liver" in assembled[2].class_name
    with pytest.raises(ModelNotReady, match="learned prompts"):
        AdaCLIP.assemble(settings, clip_weights=weights_file)


@pytest.mark.parametrize(("kind", "branch"), [("S", "V"), ("S", "L"), ("SD", "VL")])
def test_published_files_tell_their_sizes(weights_file: Path, tmp_path: Path, kind: str, branch: str) -> None:
    adapter = build(weights_file, prompt_type=kind, prompt_branch=branch).adapter
    torch.save({f"clip_model.{n}": t for n, t in adapter.state_dict().items()}, tmp_path / "p.pth")
    _, sizes = read_published(tmp_path / "p.pth")
    assert sizes == {"prompt_type": kind, "prompt_branch": branch, "prompt_depth": 3, "prompt_length": 2}


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(ModelNotReady, match="not an AdaCLIP checkpoint"):
        read_published(tmp_path / "other.pth")
    with pytest.raises(ModelNotReady, match="no such file"):
        read_published(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 72}, "multiple"),
        ({"output_layers": (4, 2)}, "ascending"),
        ({"output_layers": (5,)}, "from 1 to 4"),
        ({"prompt_type": "X"}, "prompt_type"),
        ({"prompt_branch": "VV"}, "prompt_branch"),
        ({"prompt_depth": 9}, "prompt_depth"),
        ({"prompt_length": 0}, "at least 1"),
        ({"class_name": ""}, "class_name"),
        ({"fusion": "magic"}, "fusion"),
        ({"clusters": 0}, "clusters"),
        ({"fusion_weight": 2.0}, "fusion_weight"),
        ({"logit_scale": 0.0}, "logit_scale"),
        ({"smoothing_sigma": -1.0}, "smoothing_sigma"),
    ],
)
def test_impossible_settings_say_so(weights_file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelNotReady, match=message):
        build(weights_file, **changes)


def test_checkpoints_that_do_not_fit_say_so(weights_file: Path) -> None:
    checkpoint = build(weights_file).to_checkpoint()
    assert not any(name.startswith("clip") for name in checkpoint.tensors)
    with pytest.raises(ModelNotReady, match="names no CLIP weights"):
        AdaCLIP.from_checkpoint(checkpoint)
    other = FrozenCLIP.build(CONFIG, None, text=True, seed=9).state_dict()
    with pytest.raises(ModelNotReady, match="not those that the detector was trained with"):
        AdaCLIP.from_checkpoint(checkpoint, clip_weights=other)
    fewer = dict(checkpoint.tensors)
    del fewer["adapter.cls_token_layer.head.0.bias"]
    with pytest.raises(ModelNotReady, match=r"cls_token_layer\.head\.0\.bias is missing"):
        AdaCLIP.from_checkpoint(replace(checkpoint, tensors=fewer), clip_weights=weights_file)
    with pytest.raises(ModelNotReady, match="unknown AdaCLIP settings: colour"):
        AdaCLIPSettings.from_dict({"colour": "red"})
    with pytest.raises(ModelNotReady, match="method 'mini'"):
        AdaCLIP.from_checkpoint(replace(checkpoint, method="mini"), clip_weights=weights_file)


def test_bf16_predictions_stay_close(weights_file: Path, images: Tensor) -> None:
    detector = build(weights_file)
    exact = detector(images)
    detector.precision = "bf16"
    rough = detector(images)
    assert (rough.image_probability - exact.image_probability).abs().max() < 0.15
    assert (rough.anomaly_map - exact.anomaly_map).abs().mean() < 0.05
