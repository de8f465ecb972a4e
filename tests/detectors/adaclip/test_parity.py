"""AdaCLIP against numbers computed by the published code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open
from shared_data import Shared
from torch import Tensor

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.adaclip.prompts import AdaCLIPAdapter
from medzsad.detectors.adaclip.scoring import aggregated_map, layer_probability_maps
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.clip.backbone import FrozenCLIP

FILE = Path(__file__).parents[2] / "parity" / "adaclip.safetensors"
LAYERS = (3, 6, 9, 12)
CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 70, "layers": 12, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 8},
}
SETTINGS = AdaCLIPSettings(backbone=CONFIG, clip_weights=None, image_size=70, class_name="brain", clusters=25)


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    with safe_open(FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata()
    assert metadata["class_name"] == SETTINGS.class_name
    assert int(metadata["clusters"]) == SETTINGS.clusters
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
) -> AdaCLIP:
    clip = FrozenCLIP.build(CONFIG, clip_weights, text=True, quick_gelu=False, position_mode="bicubic")
    config = SETTINGS.resolve(clip)
    shapes = AdaCLIPAdapter.build(config, clip).state_dict()
    learned = {
        name: rule_tensor(f"clip_model.{name}", tuple(t.shape), int(expected["seed"]))
        for name, t in shapes.items()
    }
    return AdaCLIP(clip, config, adapter=AdaCLIPAdapter.build(config, clip, learned)).eval()


def assert_close(ours: Tensor, reference: Tensor) -> None:
    assert ours.shape == reference.shape
    assert float((ours - reference).abs().max() / reference.abs().max()) <= 1e-4


@torch.inference_mode()
def test_every_stage_equals_the_published_code(detector: AdaCLIP, expected: dict[str, Tensor]) -> None:
    images = expected["input"]
    encoded = detector.encode(images)
    assert_close(encoded.text, expected["text_features"])
    for layer in LAYERS:
        assert_close(encoded.patches[layer], expected[f"patch_features.{layer}"])
    comparison = detector.compare(images)
    assert_close(comparison.image_logits.softmax(-1)[:, 1], expected["image_probability"])
    assert_close(comparison.class_logits.softmax(-1)[:, 1], expected["image_probability_without_hsf"])
    for layer, maps in layer_probability_maps(comparison, (70, 70)).items():
        assert_close(maps, expected[f"layer_probability_maps.{layer}"])
    assert_close(aggregated_map(comparison, (70, 70)), expected["anomaly_map"])
    assert_close(aggregated_map(comparison, (70, 70), sigma=4), expected["anomaly_map_smoothed"])
    assert_close(encoded.image, expected["image_feature"])


@torch.inference_mode()
def test_the_prediction_is_made_of_them(detector: AdaCLIP, expected: dict[str, Tensor]) -> None:
    prediction = detector.detect(expected["input"])
    assert_close(prediction.anomaly_map, expected["anomaly_map_smoothed"])
    assert_close(prediction.image_score, expected["image_probability"])
    assert_close(prediction.image_probability, expected["image_probability_without_hsf"])


@torch.inference_mode()
def test_the_published_checkpoint_format_gives_the_same(
    shared: Shared, clip_weights: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    path = shared("parity/adaclip_checkpoint.pth")
    detector = AdaCLIP.from_published(path, clip_weights=clip_weights, config=SETTINGS)
    assert (detector.config.prompt_type, detector.config.prompt_branch) == ("SD", "VL")
    assert (detector.config.prompt_depth, detector.config.prompt_length) == (4, 5)
    prediction = detector.detect(expected["input"])
    assert_close(prediction.anomaly_map, expected["anomaly_map_smoothed"])
    assert_close(prediction.image_score, expected["image_probability"])


@torch.inference_mode()
def test_a_batch_equals_its_images_one_by_one(detector: AdaCLIP, expected: dict[str, Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.cat([expected["input"], torch.randn(3, 3, 70, 70, generator=generator)])
    batch = detector.detect(images)
    assert_close(batch.anomaly_map[:1], expected["anomaly_map_smoothed"])
    assert_close(batch.image_score[:1], expected["image_probability"])
    for index in range(len(images)):
        alone = detector.detect(images[index : index + 1])
        for ours, reference in zip(batch, alone, strict=True):
            assert_close(ours[index : index + 1], reference)


@torch.inference_mode()
def test_bf16_autocast_stays_close(detector: AdaCLIP, expected: dict[str, Tensor]) -> None:
    # Logits are a hundred times cosines, and these random texts differ little: rounding shows in the map.
    with torch.autocast("cpu", torch.bfloat16):
        encoded = detector.encode(expected["input"])
        prediction = detector.detect(expected["input"])
    assert all(tensor.dtype == torch.float32 for tensor in prediction)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(encoded.image, expected["image_feature"]).min() > 0.999
    assert cosine(encoded.patches[12], expected["patch_features.12"], dim=-1).min() > 0.99
    assert (prediction.anomaly_map - expected["anomaly_map_smoothed"]).abs().max() < 0.05
    assert (prediction.image_score - expected["image_probability"]).abs().max() < 0.005
