"""medzsad-mini: the detector, its embedded weights and the generator that it was trained on."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import medzsad
from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import MedzsadMini, gaussian_smooth, platt
from medzsad.detectors.mini.network import input_features
from medzsad.errors import ModelNotReady
from medzsad.scans.scan import Modality
from medzsad.zoo.loading import load_detector

EMBEDDED = Path(medzsad.__file__).parent / "weights" / "medzsad-mini.safetensors"
GENERATOR = Path(__file__).parents[3] / "tools" / "synthetic_images.py"


@pytest.fixture(scope="module")
def detector() -> MedzsadMini:
    return MedzsadMini.from_checkpoint(read_checkpoint(EMBEDDED))


@pytest.fixture(scope="module")
def synthetic() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthetic_images", GENERATOR)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def picture(batch: int, height: int = 90, width: int = 120) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


def test_prediction_has_the_images_size_and_lies_in_0_1(detector: MedzsadMini) -> None:
    out = detector(picture(2))
    assert out.anomaly_map.shape == (2, 90, 120)
    assert out.image_score.shape == out.image_probability.shape == (2,)
    for tensor in out:
        assert tensor.dtype == torch.float32
        assert tensor.min() >= 0
        assert tensor.max() <= 1


def test_the_same_images_give_the_same_numbers(detector: MedzsadMini) -> None:
    for first, second in zip(detector(picture(2)), detector(picture(2)), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_batch_equals_its_images_one_by_one(detector: MedzsadMini) -> None:
    images = picture(3)
    whole = detector(images)
    parts = [detector(image[None]) for image in images]
    for index, tensor in enumerate(whole):
        torch.testing.assert_close(tensor, torch.cat([part[index] for part in parts]), rtol=0, atol=2e-4)


def test_a_mirrored_scan_gives_the_mirrored_map(detector: MedzsadMini) -> None:
    detector, images = detector.for_modality(Modality.CT), picture(1, 192, 192)
    plain, mirrored = detector(images), detector(images.flip(-1))
    torch.testing.assert_close(plain.anomaly_map, mirrored.anomaly_map.flip(-1), rtol=0, atol=2e-4)
    torch.testing.assert_close(plain.image_score, mirrored.image_score, rtol=0, atol=2e-4)


def test_the_joint_score_mixes_probability_and_map_maximum(detector: MedzsadMini) -> None:
    checkpoint = detector.to_checkpoint()
    checkpoint = dataclasses.replace(checkpoint, settings={**checkpoint.settings, "calibration": None})
    plain = MedzsadMini.from_checkpoint(checkpoint)
    inputs = plain.preprocess(picture(2, 192, 192))
    raw = plain.detect(inputs)
    expected = 0.5 * raw.image_probability + 0.5 * raw.anomaly_map.amax((1, 2))
    torch.testing.assert_close(raw.image_score, expected, rtol=0, atol=1e-6)
    # Calibration comes last: it moves values and keeps their order.
    slope, offset = detector.calibration["colour"]["score"]
    calibrated = detector.detect(inputs).image_score
    torch.testing.assert_close(calibrated, platt(expected, slope, offset), rtol=0, atol=1e-4)
    assert slope > 0


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_empty_images_stay_finite(detector: MedzsadMini, value: float) -> None:
    for tensor in detector(torch.full((1, 3, 64, 64), value)):
        assert tensor.isfinite().all()


def test_bf16_is_close_to_fp32(detector: MedzsadMini, synthetic: ModuleType) -> None:
    images = synthetic.generate(11, 4, 192).images
    full = detector(images)
    detector.precision = "bf16"
    try:
        half = detector(images)
    finally:
        detector.precision = "fp32"
    assert (full.anomaly_map - half.anomaly_map).abs().max() < 0.01
    assert (full.image_score - half.image_score).abs().max() < 0.004


def test_auto_is_fp32_where_the_cpu_has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medzsad.detectors.devices.cpu_computes_bf16", lambda: True)
    assert load_detector("medzsad-mini", device="cpu").precision == "fp32"
    assert load_detector("medzsad-mini", device="cpu", precision="bf16").precision == "bf16"


def test_checkpoint_round_trip(detector: MedzsadMini, tmp_path: Path) -> None:
    save_checkpoint(detector.to_checkpoint(), tmp_path / "mini.safetensors")
    again = MedzsadMini.from_checkpoint(read_checkpoint(tmp_path / "mini.safetensors"))
    assert again.settings == detector.settings
    assert again.threshold == detector.threshold
    torch.testing.assert_close(
        again(picture(1)).anomaly_map, detector(picture(1)).anomaly_map, rtol=0, atol=0
    )


def test_a_checkpoint_that_does_not_fit_is_refused(detector: MedzsadMini) -> None:
    good = detector.to_checkpoint()
    with pytest.raises(ModelNotReady, match="method 'headclip'"):
        MedzsadMini.from_checkpoint(dataclasses.replace(good, method="headclip"))
    with pytest.raises(ModelNotReady, match="does not fit"):
        MedzsadMini.from_checkpoint(dataclasses.replace(good, tensors={}))
    with pytest.raises(ModelNotReady, match="does not fit"):
        MedzsadMini.from_checkpoint(dataclasses.replace(good, settings={**good.settings, "image_size": 100}))


def test_the_embedded_file_is_small_and_says_where_it_comes_from(detector: MedzsadMini) -> None:
    assert EMBEDDED.stat().st_size < 25e6
    assert 2e6 < sum(p.numel() for p in detector.parameters()) < 15e6
    assert detector.colour_network is not None
    assert (detector.image_size, detector.slice_size) == (144, 192)
    grey = read_checkpoint(EMBEDDED).training
    for training in (grey, grey["colour"]):
        assert training["licence"] == "Apache-2.0"
        assert {"seed", "steps", "images_seen", "data", "version"} <= training.keys()
    assert EMBEDDED.with_suffix(".md").is_file()
    assert 0 < detector.threshold < 1


def test_a_lesion_scores_higher_than_its_clean_twin(detector: MedzsadMini, synthetic: ModuleType) -> None:
    batch = synthetic.generate(21, 48, 192, pairs=True)
    scores = detector(batch.images).image_score
    clean, sick = scores[:24], scores[24:]
    visible = batch.labels[24:] == 1
    assert visible.sum() >= 20
    # 18 of 24 with the first weights: small, faint lesions are what it misses (see the model card).
    assert (sick > clean)[visible].float().mean() > 0.7
    assert sick[visible].mean() > clean[visible].mean() + 0.1


def test_the_map_is_higher_inside_lesions(detector: MedzsadMini, synthetic: ModuleType) -> None:
    batch = synthetic.generate(22, 24, 192)
    out, lesion = detector(batch.images), batch.masks > 0
    assert out.anomaly_map[lesion].mean() > 3 * out.anomaly_map[~lesion].mean()


def test_input_features_do_not_depend_on_the_padding() -> None:
    image = torch.rand(1, 3, 32, 32) * 0.9 + 0.1
    padded = torch.nn.functional.pad(image, (16, 16, 16, 16))
    inner = input_features(padded)[:, 1, 16:48, 16:48]
    torch.testing.assert_close(inner, input_features(image)[:, 1], rtol=0, atol=1e-4)


def test_smoothing_keeps_constants_and_zero_sigma_is_identity() -> None:
    maps = torch.full((2, 12, 12), 0.3)
    torch.testing.assert_close(gaussian_smooth(maps, 2.0), maps)
    assert gaussian_smooth(maps, 0) is maps


def test_the_generator_keeps_its_promises(synthetic: ModuleType) -> None:
    batch = synthetic.generate(5, 32, 96)
    assert batch.images.shape == (32, 3, 96, 96)
    assert batch.images.isfinite().all()
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert set(batch.masks.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(batch.masks.flatten(1).any(1).long(), batch.labels)
    assert 0.3 < batch.labels.float().mean() < 0.8


def test_the_generator_follows_its_seed(synthetic: ModuleType) -> None:
    first, second, other = (synthetic.generate(seed, 8, 64) for seed in (5, 5, 6))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.masks, second.masks)
    assert not torch.equal(first.images, other.images)


def test_real_slices_are_used_where_given(synthetic: ModuleType) -> None:
    slices = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
    assert synthetic.load_slices(None) is None
    assert synthetic.generate(7, 16, 64, slices).images.isfinite().all()


def test_platt_scaling_that_changes_nothing_changes_nothing() -> None:
    values = torch.tensor([0.0, 0.3, 1.0])
    assert platt(values, 1.0, 0.0) is values
    shifted = platt(values, 2.0, -1.0)
    assert (shifted.diff() > 0).all()
    assert shifted.min() >= 0
    assert shifted.max() <= 1
