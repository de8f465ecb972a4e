"""HeadCLIP with head weights 1 against numbers computed by the published AnomalyCLIP code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from shared_data import Shared
from torch import Tensor

from medzsad.detectors.headclip.model import HeadCLIP, HeadCLIPSettings
from medzsad.detectors.headclip.prompts import PromptLearner
from medzsad.detectors.scoring import gaussian_smooth

FILE = Path(__file__).parents[2] / "parity" / "anomalyclip.safetensors"
LAYERS = (6, 8, 10, 12)
CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 56, "layers": 12, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 10},
}
SETTINGS = HeadCLIPSettings(
    backbone=CONFIG,
    clip_weights=None,
    quick_gelu=True,
    image_size=70,
    patch_layers=LAYERS,
    vv_start=7,
    joint_weight=0.0,
)


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    with safe_open(FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata()
    shape = tuple(int(n) for n in metadata["input"].split(","))
    seed = int(metadata["seed"])
    tensors["input"] = torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))
    tensors["seed"] = torch.tensor(seed)
    return tensors


@pytest.fixture(scope="module")
def clip_weights(expected: dict[str, Tensor], rule_tensor: Callable[..., Tensor]) -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in open_clip.CLIP(**CONFIG).state_dict().items()}
    return {name: rule_tensor(name, shape, int(expected["seed"])) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def detector(
    expected: dict[str, Tensor], clip_weights: dict[str, Tensor], rule_tensor: Callable[..., Tensor]
) -> HeadCLIP:
    learner = PromptLearner(64)
    learner.load_state_dict(
        {
            name: rule_tensor(f"prompt_learner.{name}", tuple(t.shape), int(expected["seed"]))
            for name, t in learner.state_dict().items()
        }
    )
    return HeadCLIP.build(SETTINGS, clip_weights=clip_weights, prompts=learner)


def assert_close(ours: Tensor, reference: Tensor) -> None:
    assert ours.shape == reference.shape
    assert float((ours - reference).abs().max() / reference.abs().max()) <= 1e-4


@torch.inference_mode()
def test_every_stage_equals_the_published_code(detector: HeadCLIP, expected: dict[str, Tensor]) -> None:
    images = expected["input"]
    assert_close(detector.encode_texts(), expected["text_features"])
    image, patches = detector.encode_images(images)
    assert_close(image, expected["image_feature"])
    for layer in LAYERS:
        assert_close(patches[layer], expected[f"patch_features.{layer}"])
    comparison = detector.compare(images)
    summed = detector.summed_map(comparison, (70, 70), smooth=False)
    assert_close(summed, expected["anomaly_map"])
    assert_close(gaussian_smooth(summed, 4), expected["anomaly_map_smoothed"])
    prediction = detector.detect(images)
    assert_close(prediction.anomaly_map * len(LAYERS), expected["anomaly_map_smoothed"])
    assert_close(prediction.image_probability, expected["image_probability"])
    assert_close(prediction.image_score, expected["image_probability"])


@torch.inference_mode()
def test_published_checkpoint_format_gives_the_same(
    shared: Shared, clip_weights: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    path = shared("parity/anomalyclip_checkpoint.pth")
    detector = HeadCLIP.from_anomalyclip(path, SETTINGS, clip_weights=clip_weights)
    assert detector.clip.text is None
    assert_close(detector.text_features, expected["text_features"])
    assert_close(detector.detect(expected["input"]).anomaly_map * 4, expected["anomaly_map_smoothed"])
    published = torch.load(path, weights_only=True)["prompt_learner"]
    texts = open_clip.tokenize(detector.prompts.texts())
    assert torch.equal(texts[:1], published["tokenized_prompts_pos"][0].long())
    assert torch.equal(texts[1:], published["tokenized_prompts_neg"][0].long())


@torch.inference_mode()
def test_bf16_autocast_stays_close(detector: HeadCLIP, expected: dict[str, Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        image, patches = detector.encode_images(expected["input"])
        prediction = detector.detect(expected["input"])
    assert prediction.anomaly_map.dtype == prediction.image_score.dtype == torch.float32
    for ours, reference in ((image, "image_feature"), (patches[12], "patch_features.12")):
        assert F.cosine_similarity(ours.float(), expected[reference], dim=-1).min() > 0.99
