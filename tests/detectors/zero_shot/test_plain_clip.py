"""Plain CLIP, and what all detectors without training share, on a tiny CLIP against open_clip's own model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from medzsad.detectors.checkpoint import Checkpoint, save_checkpoint
from medzsad.detectors.clip import backbone
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.state_prompts import encode_states, state_prompts
from medzsad.detectors.organs import vocabulary
from medzsad.detectors.registry import detector_class
from medzsad.detectors.zero_shot.plain_clip import PlainCLIP
from medzsad.detectors.zero_shot.settings import PlainCLIPSettings
from medzsad.errors import BadInput, ModelNotReady
from medzsad.zoo.loading import load_detector

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 70, "layers": 4, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
SETTINGS = PlainCLIPSettings(backbone=CONFIG, clip_weights=None)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(FrozenCLIP.build(CONFIG, None, text=True).state_dict(), path)
    return path


def build(weights_file: Path, **changes: Any) -> PlainCLIP:
    return PlainCLIP.build(replace(SETTINGS, **changes), clip_weights=weights_file)


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(2, 3, 70, 70, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 50, 60, generator=torch.Generator().manual_seed(2))


def test_it_is_registered_and_takes_an_organ() -> None:
    assert detector_class("clip") is PlainCLIP
    assert PlainCLIP.uses_organ


@torch.no_grad()
def test_scores_and_maps_are_those_of_open_clip(weights_file: Path, inputs: Tensor) -> None:
    detector = build(weights_file, smoothing_sigma=3.0)
    plain = open_clip.CLIP(**CONFIG, output_dict=True).eval()
    state = FrozenCLIP.build(CONFIG, weights_file, text=True).state_dict()
    plain.load_state_dict(
        {n.removeprefix("text."): t for n, t in state.items()} | {"logit_scale": plain.logit_scale}
    )
    plain.visual.output_tokens = True
    image, patches = plain.visual(inputs)
    patches = patches @ plain.visual.proj  # open_clip gives them after the final layer norm
    texts = []
    for prompts in state_prompts("object", templates="winclip"):
        features = F.normalize(plain.encode_text(open_clip.tokenize(prompts)), dim=-1)
        texts.append(F.normalize(features.mean(0), dim=-1))

    def probability(features: Tensor) -> Tensor:
        return (100 * F.normalize(features, dim=-1) @ torch.stack(texts).T).softmax(-1)[..., 1]

    maps = F.interpolate(probability(patches).view(2, 1, 5, 5), (70, 70), mode="bilinear")[:, 0]
    expected = torch.stack([torch.from_numpy(scipy.ndimage.gaussian_filter(m.numpy(), 3.0)) for m in maps])
    found = detector.detect(inputs)
    torch.testing.assert_close(found.image_probability, probability(image), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.anomaly_map, expected, atol=1e-4, rtol=1e-4)
    assert found.anomaly_map.std() > 1e-3
    assert torch.equal(found.image_score, found.image_probability)


def test_prediction_has_the_promised_shapes_and_ranges(weights_file: Path, images: Tensor) -> None:
    prediction = build(weights_file)(images)
    assert prediction.anomaly_map.shape == (2, 50, 60)
    for tensor in prediction:
        assert tensor.dtype == torch.float32
        assert tensor.min() >= 0
        assert tensor.max() <= 1


@torch.inference_mode()
def test_the_vv_path_changes_the_map_alone(weights_file: Path, inputs: Tensor) -> None:
    plain, vv = build(weights_file, smoothing_sigma=0), build(weights_file, dense="vv", smoothing_sigma=0)
    assert vv.config.vv_start == 1
    run = vv.clip.run_blocks(vv.clip.embed(inputs), layers=(4,), vv_start=1)
    coarse = vv.abnormal_probability(vv.clip.project(run.layers[4])[:, 1:]).view(2, 1, 5, 5)
    expected = F.interpolate(coarse, (70, 70), mode="bilinear")[:, 0]
    found = vv.detect(inputs)
    torch.testing.assert_close(found.anomaly_map, expected)
    torch.testing.assert_close(found.image_score, plain.detect(inputs).image_score)
    assert (found.anomaly_map - plain.detect(inputs).anomaly_map).abs().max() > 0.01


@torch.inference_mode()
def test_the_joint_weight_mixes_in_the_maps_maximum(weights_file: Path, inputs: Tensor) -> None:
    maps, score, probability = build(weights_file, joint_weight=0.25).detect(inputs)
    torch.testing.assert_close(score, 0.75 * probability + 0.25 * maps.amax((1, 2)))


def test_words_come_from_the_organ_the_class_name_or_two_prompts(weights_file: Path) -> None:
    clip = FrozenCLIP.build(CONFIG, weights_file, text=True)
    words = vocabulary("brain/mr")
    arguments = {"templates": words.templates, "states": words.states}
    by_organ = build(weights_file, organ="brain/mr").text_features
    torch.testing.assert_close(by_organ, encode_states(clip, "brain MRI", **arguments))
    named = build(weights_file, organ="brain/mr", class_name="FLAIR image").text_features
    torch.testing.assert_close(named, encode_states(clip, "FLAIR image", **arguments))
    two = build(weights_file, ensemble="two", class_name="retina").text_features
    texts = ["a photo of a normal retina", "a photo of an anomalous retina"]
    torch.testing.assert_close(two, F.normalize(clip.encode_texts(texts), dim=-1))
    plain = build(weights_file).text_features
    assert min((plain - other).abs().max() for other in (by_organ, named, two)) > 1e-3


def test_the_text_tower_is_dropped_once_the_texts_are_encoded(weights_file: Path) -> None:
    detector = build(weights_file)
    assert detector.clip.text is None
    assert not any(name.startswith("clip.text") for name in detector.state_dict())
    with pytest.raises(ModelNotReady, match="without its text tower"):
        PlainCLIP(detector.clip, SETTINGS)


def test_a_checkpoint_predicts_the_same(
    weights_file: Path, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = build(weights_file, organ="colon", temperature=0.02)
    detector.threshold = "p99"
    path = tmp_path / "clip.safetensors"
    save_checkpoint(detector.to_checkpoint(), path)
    built: list[Mapping[str, Any]] = []
    original = backbone.open_clip.CustomTextCLIP
    monkeypatch.setattr(
        backbone.open_clip,
        "CustomTextCLIP",
        lambda **arguments: built.append(arguments["text_cfg"]) or original(**arguments),
    )
    loaded = load_detector(path, device="cpu", precision="fp32", clip_weights=weights_file)
    assert [text_cfg["layers"] for text_cfg in built] == [1]  # a stub: texts are stored
    assert isinstance(loaded, PlainCLIP)
    assert (loaded.threshold, loaded.config) == ("p99", detector.config)
    for ours, stored in zip(loaded(images), detector(images), strict=True):
        assert torch.equal(ours, stored)
    checkpoint = loaded.to_checkpoint()
    assert list(checkpoint.tensors) == ["text_features"]
    assert checkpoint.settings == detector.to_checkpoint().settings


def test_a_checkpoint_can_be_given_another_organ(weights_file: Path) -> None:
    checkpoint = build(weights_file, organ="colon").to_checkpoint()
    detector = PlainCLIP.from_checkpoint(checkpoint, clip_weights=weights_file, organ="skin")
    assert detector.clip.text is None
    assert detector.config == build(weights_file, organ="skin").config
    assert torch.equal(detector.text_features, build(weights_file, organ="skin").text_features)
    with pytest.raises(BadInput, match="unknown organ"):
        PlainCLIP.from_checkpoint(checkpoint, clip_weights=weights_file, organ="brian")


def test_weights_that_are_given_are_named_in_the_settings(weights_file: Path) -> None:
    named = PlainCLIP.assemble({"backbone": CONFIG}, clip_weights=weights_file).settings["clip_weights"]
    assert named == weights_file.name
    settings = {"backbone": CONFIG, "clip_weights": "openai"}
    assert PlainCLIP.assemble(settings, clip_weights=weights_file).settings["clip_weights"] == "openai"


def test_other_clip_weights_are_noticed_but_half_precision_is_not(weights_file: Path) -> None:
    detector = build(weights_file)
    checkpoint = detector.to_checkpoint()
    same = {name: tensor.half() for name, tensor in detector.clip.state_dict().items()}
    PlainCLIP.from_checkpoint(checkpoint, clip_weights=same)
    other = FrozenCLIP.build(CONFIG, None, seed=9).state_dict()
    with pytest.raises(ModelNotReady, match="not those that the detector's texts were encoded with"):
        PlainCLIP.from_checkpoint(checkpoint, clip_weights=other)


def spoil(checkpoint: Checkpoint, kind: str) -> Checkpoint:
    settings = dict(checkpoint.settings)
    if kind == "method":
        return replace(checkpoint, method="winclip")
    if kind == "texts":
        return replace(checkpoint, tensors={})
    if kind == "text size":
        return replace(checkpoint, tensors={"text_features": torch.zeros(2, 8)})
    settings["colour"] = "red"
    return replace(checkpoint, settings=settings)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("method", "method 'winclip'"),
        ("setting", "unknown PlainCLIP settings: colour"),
        ("texts", "no text_features"),
        ("text size", "do not fit"),
    ],
)
def test_checkpoints_that_do_not_fit_say_so(weights_file: Path, kind: str, message: str) -> None:
    with pytest.raises(ModelNotReady, match=message) as caught:
        PlainCLIP.from_checkpoint(spoil(build(weights_file).to_checkpoint(), kind), clip_weights=weights_file)
    assert "\n" not in str(caught.value)


def test_it_is_assembled_from_settings_weights_and_an_organ(weights_file: Path, images: Tensor) -> None:
    settings = {"backbone": CONFIG, "clip_weights": None, "organ": "head", "threshold": 0.7}
    detector = PlainCLIP.assemble(settings, clip_weights=weights_file, organ="colon")
    assert (detector.config.organ, detector.threshold, detector.training) == ("colon", 0.7, False)
    expected = build(weights_file, organ="colon")
    assert torch.equal(detector(images).anomaly_map, expected(images).anomaly_map)
    assert PlainCLIP.assemble(settings, clip_weights=weights_file).config.organ == "head"
    assert detector.settings["organ"] == "colon"
    assert detector.settings["precision"] == "fp32"


def test_what_cannot_be_assembled_says_so(weights_file: Path) -> None:
    settings = {"backbone": CONFIG, "clip_weights": None}
    with pytest.raises(ModelNotReady, match="training-free and takes no adapter"):
        PlainCLIP.assemble(settings, clip_weights=weights_file, adapter="learned.pth")
    with pytest.raises(ModelNotReady, match="names no CLIP weights"):
        PlainCLIP.assemble(settings)
    with pytest.raises(BadInput, match="unknown organ 'brian'"):
        PlainCLIP.assemble(settings, clip_weights="nowhere.pt", organ="brian")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 72}, "multiple"),
        ({"image_size": 0}, "multiple"),
        ({"temperature": 0}, "temperature"),
        ({"smoothing_sigma": -1}, "smoothing_sigma"),
        ({"joint_weight": 1.5}, "joint_weight"),
        ({"class_name": " "}, "class_name"),
        ({"class_name": "brain " * 80}, "too long"),
        ({"ensemble": "three"}, "ensemble"),
        ({"dense": "sparse"}, "dense"),
        ({"vv_start": 5}, "vv_start"),
        ({"position_mode": "nearest"}, "position_mode"),
    ],
)
def test_impossible_settings_say_so(weights_file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelNotReady, match=message):
        build(weights_file, **changes)


def test_the_native_size_is_the_default(weights_file: Path) -> None:
    assert build(weights_file).image_size == 70
    assert build(weights_file, image_size=84).image_size == 84


@torch.inference_mode()
def test_bf16_predictions_stay_close(weights_file: Path, images: Tensor) -> None:
    # Measured on 4 random towers: at most 0.0072 in the map and 0.0041 in the score. At temperature 1/100
    # a difference of 0.01 in similarity is one of up to 0.25 in probability.
    detector = build(weights_file)
    exact = detector(images)
    detector.precision = "bf16"
    rough = detector(images)
    assert (rough.anomaly_map - exact.anomaly_map).abs().max() < 0.02
    assert (rough.image_probability - exact.image_probability).abs().max() < 0.02


def test_detectors_for_classes_share_all_but_their_texts(weights_file: Path, images: Tensor) -> None:
    detector = build(weights_file)
    found = detector.for_classes(["brain", "metal_nut", "object"])
    assert [*found] == ["brain", "metal_nut", "object"]
    assert found["object"] is detector
    for name, one in found.items():
        assert one.clip is detector.clip
        assert one.settings["class_name"] == one.class_name == name
        assert torch.equal(one.text_features, build(weights_file, class_name=name).text_features)
    assert detector.clip.text is None
    organ = detector.for_classes(["brain MRI"], organ="brain/mr")["brain MRI"]
    assert torch.equal(organ.text_features, build(weights_file, organ="brain/mr").text_features)
    with pytest.raises(BadInput, match="unknown organ"):
        detector.for_classes(["tail"], organ="tail")
    with pytest.raises(ModelNotReady, match="too long"):
        detector.for_classes(["very " * 90 + "long"])


def test_a_checkpoint_takes_another_class(weights_file: Path, images: Tensor) -> None:
    checkpoint = build(weights_file, organ="brain/mr").to_checkpoint()
    for options, name in (
        ({}, "brain MRI"),
        ({"class_name": "head"}, "head"),
        ({"organ": "liver/ct"}, "liver CT"),
        ({"organ": "liver/ct", "class_name": "belly"}, "belly"),
    ):
        detector = PlainCLIP.from_checkpoint(checkpoint, clip_weights=weights_file, **options)
        assert detector.settings["class_name"] == name
        changes = {"organ": "brain/mr", **options}
        assert torch.equal(detector.text_features, build(weights_file, **changes).text_features)
