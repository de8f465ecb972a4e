"""WinCLIP on a tiny CLIP, against a plain reference that goes window by window and patch by patch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from medzsad.detectors.checkpoint import save_checkpoint
from medzsad.detectors.clip.backbone import FrozenCLIP, TowerRun
from medzsad.detectors.registry import detector_class
from medzsad.detectors.zero_shot.settings import WinCLIPSettings
from medzsad.detectors.zero_shot.winclip import WinCLIP, harmonic_mean, spread_windows, window_patches
from medzsad.errors import ModelNotReady
from medzsad.zoo.loading import load_detector

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 70, "layers": 3, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
SETTINGS = WinCLIPSettings(backbone=CONFIG, clip_weights=None)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(FrozenCLIP.build(CONFIG, None, text=True).state_dict(), path)
    return path


def build(weights_file: Path, **changes: Any) -> WinCLIP:
    return WinCLIP.build(replace(SETTINGS, **changes), clip_weights=weights_file)


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(3, 3, 70, 70, generator=torch.Generator().manual_seed(2))


def test_it_is_registered_and_takes_an_organ() -> None:
    assert detector_class("winclip") is WinCLIP
    assert WinCLIP.uses_organ


def reference_map(detector: WinCLIP, image: Tensor, scales: tuple[int, ...], side: int) -> Tensor:
    """One image (1, 3, S, S) to its map (side, side), with plain loops and open_clip's own blocks."""
    clip = detector.clip
    visual, text = clip.visual, detector.text_features

    def probability(tokens: Tensor) -> float:
        feature = visual.ln_post(visual.transformer(tokens))[0, 0] @ visual.proj
        similarity = F.normalize(feature, dim=0) @ text.T / 0.07
        return float(similarity.softmax(0)[1])

    patches = visual.conv1(image)[0].permute(1, 2, 0)  # (side, side, C)
    positions = clip.position_embedding((side, side))
    first = visual.ln_pre(visual.class_embedding + positions[0])
    tokens = visual.ln_pre(patches + positions[1:].view(side, side, -1))
    whole = probability(torch.cat([first[None], tokens.flatten(0, 1)])[None])
    inverse = torch.full((side, side), 1 / whole)
    for scale in scales:
        seen: dict[tuple[int, int], list[float]] = {}
        for top in range(side - scale + 1):
            for left in range(side - scale + 1):
                window = tokens[top : top + scale, left : left + scale].flatten(0, 1)
                score = probability(torch.cat([first[None], window])[None])
                for row in range(top, top + scale):
                    for column in range(left, left + scale):
                        seen.setdefault((row, column), []).append(score)
        for place, scores in seen.items():
            inverse[place] += sum(1 / score for score in scores) / len(scores)
    return (len(scales) + 1) / inverse


@pytest.mark.parametrize(("size", "scales"), [(70, (2, 3)), (84, (2, 3)), (70, (1, 4))])
@torch.no_grad()
def test_the_map_equals_a_plain_reference(weights_file: Path, size: int, scales: tuple[int, ...]) -> None:
    detector = build(weights_file, image_size=size, scales=scales)
    inputs = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(4))
    found = detector.detect(inputs)
    side = size // 14
    coarse = torch.stack([reference_map(detector, image[None], scales, side) for image in inputs])
    expected = F.interpolate(coarse[:, None], (size, size), mode="bilinear")[:, 0]
    torch.testing.assert_close(found.anomaly_map, expected, atol=1e-5, rtol=1e-4)
    assert coarse.std() > 1e-4


@torch.inference_mode()
def test_a_window_of_the_whole_grid_is_the_plain_class_feature(weights_file: Path, inputs: Tensor) -> None:
    detector = build(weights_file, scales=(5,))
    clip = detector.clip
    features = detector.window_features(clip.embed(inputs), (5, 5), 5)
    assert features.shape == (3, 1, 32)
    torch.testing.assert_close(features[:, 0], clip.encode_image(inputs), atol=1e-5, rtol=1e-4)
    maps, score, probability = detector.detect(inputs)
    torch.testing.assert_close(maps, probability[:, None, None].expand(3, 70, 70), atol=1e-5, rtol=1e-4)
    assert torch.equal(score, probability)


@torch.inference_mode()
def test_a_batch_gives_what_single_images_give(weights_file: Path, inputs: Tensor) -> None:
    detector = build(weights_file, smoothing_sigma=2.0, joint_weight=0.5)
    together = detector.detect(inputs)
    for index, image in enumerate(inputs):
        alone = detector.detect(image[None])
        for ours, single in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[index], single[0], atol=1e-5, rtol=1e-5)
    assert together.image_score.std() > 1e-5


@pytest.mark.parametrize("chunk", [1, 37, 10_000])
@torch.inference_mode()
def test_chunks_bound_memory_and_change_nothing(weights_file: Path, inputs: Tensor, chunk: int) -> None:
    detector = build(weights_file)
    expected = detector.detect(inputs).anomaly_map
    lengths: list[int] = []
    original = detector.clip.run_blocks

    def counted(tokens: Tensor, **options: bool) -> TowerRun:
        lengths.append(tokens[..., 0].numel())
        return original(tokens, **options)

    detector.clip.run_blocks = counted
    detector.chunk_tokens = chunk
    torch.testing.assert_close(detector.detect(inputs).anomaly_map, expected, atol=1e-5, rtol=1e-5)
    assert lengths[0] == 3 * 26  # the whole images
    assert max(lengths[1:]) <= max(chunk, 10)  # at least one window at a time
    assert sum(lengths[1:]) == 3 * (16 * 5 + 9 * 10)


def test_windows_hold_neighbouring_patches() -> None:
    windows = window_patches((3, 4), 2)
    assert windows.shape == (6, 4)
    assert windows[0].tolist() == [0, 1, 4, 5]
    assert windows[-1].tolist() == [6, 7, 10, 11]


def test_patches_get_the_harmonic_mean_of_their_windows() -> None:
    scores = torch.tensor([[0.5, 0.25]])  # two windows side by side
    expected = torch.tensor([[0.5, 1 / 3, 0.25]]).expand(2, 3)
    torch.testing.assert_close(spread_windows(scores, (2, 3), 2)[0], expected)
    torch.testing.assert_close(harmonic_mean(torch.tensor([0.5, 0.25, 1.0])), torch.tensor(3 / 7))


def test_probabilities_of_zero_stay_finite() -> None:
    assert spread_windows(torch.zeros(1, 4), (3, 3), 2).abs().max() <= 1e-11
    assert harmonic_mean(torch.tensor([0.0, 1.0])) <= 1e-11


@torch.inference_mode()
def test_a_checkpoint_predicts_the_same(weights_file: Path, tmp_path: Path) -> None:
    detector = build(weights_file, organ="retina", scales=(3, 1))
    path = tmp_path / "winclip.safetensors"
    save_checkpoint(detector.to_checkpoint(), path)
    loaded = load_detector(path, device="cpu", precision="fp32", clip_weights=weights_file)
    assert isinstance(loaded, WinCLIP)
    assert loaded.config == detector.config
    images = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(2))
    prediction = detector(images)
    assert prediction.anomaly_map.shape == (2, 40, 50)
    for ours, stored in zip(loaded(images), prediction, strict=True):
        assert torch.equal(ours, stored)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": ()}, "scales .* from 1 to 5"),
        ({"scales": (2, 6)}, "scales"),
        ({"scales": (2, 2)}, "scales"),
        ({"scales": (2.5,)}, "scales"),
        ({"temperature": -1}, "WinCLIP settings: temperature"),
    ],
)
def test_impossible_settings_say_so(weights_file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelNotReady, match=message):
        build(weights_file, **changes)


@torch.inference_mode()
def test_bf16_predictions_stay_close(weights_file: Path) -> None:
    detector = build(weights_file)
    images = torch.rand(2, 3, 70, 70, generator=torch.Generator().manual_seed(2))
    exact = detector(images)
    detector.precision = "bf16"
    rough = detector(images)
    # Measured on 4 random towers: at most 0.0006, in maps that vary by 0.008 to 0.019 (standard deviation).
    assert (rough.anomaly_map - exact.anomaly_map).abs().max() < 0.002
    assert (rough.image_probability - exact.image_probability).abs().max() < 0.002
