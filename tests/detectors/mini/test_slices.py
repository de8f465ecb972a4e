"""medzsad-mini's network for slices of volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.mini.network import MiniNetwork
from medzsad.detectors.mini.slices import SliceNetwork, slice_features
from medzsad.detectors.volume_intensity import encode

SMALL = {"widths": (8, 8, 16, 16), "depth": 1, "heads": 2, "pixel_width": 8}


def slices(batch: int, side: int = 64) -> torch.Tensor:
    r = torch.Generator().manual_seed(5)
    inside = torch.zeros(batch, 3, side, side)
    inside[:, :, 8:-8, 8:-8] = 1
    return encode(torch.randn(batch, 3, side, side, generator=r), inside)


@pytest.fixture(scope="module")
def detector() -> MedzsadMini:
    torch.manual_seed(0)
    return MedzsadMini(
        image_size=48, slice_size=64, network=SMALL, colour=True, neighbour_mm=3.0, slice_threshold=0.2
    )


def test_features_tell_slices_below_and_above_and_are_0_in_air() -> None:
    images = slices(2)
    features = slice_features(images)
    assert features.shape == (2, 9, 64, 64)
    assert features.isfinite().all()
    swapped = slice_features(images[:, [0, 2, 1]])
    torch.testing.assert_close(swapped[:, [0, 1, 2, 3, 4, 5, 6, 8, 7]], features)
    assert (features[:, [1, 2, 4, 7, 8], :4] == 0).all()


def test_bright_lesions_are_not_cut_off() -> None:
    bright, brighter = (encode(torch.full((1, 3, 64, 64), d), torch.ones(1)) for d in (3.5, 7.0))
    assert (slice_features(brighter) - slice_features(bright)).abs().amax() > 1


def test_it_starts_as_the_network_that_it_is_trained_from() -> None:
    torch.manual_seed(0)
    grey, network = MiniNetwork(**SMALL), SliceNetwork(**SMALL)
    network.start_from(grey.state_dict())
    for name, tensor in grey.state_dict().items():
        if name != "stage_2.0.0.weight":
            assert torch.equal(network.state_dict()[name], tensor)
    images = slices(2)
    plain = network.eval()(images)[0]
    # What lies below and above counts for nothing yet.
    other = images.clone()
    other[:, 1:] = images[:, 1:].flip(-1)
    torch.testing.assert_close(network(other)[0], plain)


def test_mirrored_features_are_dropped_in_training_only() -> None:
    torch.manual_seed(0)
    network = SliceNetwork(**SMALL)
    images = slices(4)
    for unit in (network.stage_8[1], network.stage_16[1]):
        unit.dropped = 1.0
    with torch.no_grad():
        without = network.train()(images)[0]
        seen = network.eval()(images)[0]
        for unit in (network.stage_8[1], network.stage_16[1]):
            unit.dropped = 0.0
        torch.testing.assert_close(network.train()(images)[0], seen)
    assert (without - seen).abs().max() > 1e-4


def test_the_brain_has_a_map_of_its_own() -> None:
    network = SliceNetwork(**SMALL).eval()
    decoded, _ = network.decode(slices(2))
    assert network.brain(decoded).shape == (2, 32, 32)


def test_volumes_take_the_third_network_and_images_the_others(detector: MedzsadMini) -> None:
    volume, film = detector.for_volume(), detector.for_volume(colour=True)
    assert (detector.neighbour_mm, volume.neighbour_mm, film.neighbour_mm) == (None, 3.0, None)
    images = slices(2)
    raw = volume.detect(images)
    _, image = detector.slice_network(images)
    torch.testing.assert_close(raw.image_probability, image.softmax(1)[:, 1])
    assert raw.anomaly_map.shape == (2, 32, 32)
    # Channels that differ are neighbours there, not colours; elsewhere they are colours.
    plain = MedzsadMini(image_size=64, network=SMALL, colour=True)
    plain.network.load_state_dict(detector.network.state_dict())
    plain.colour_network.load_state_dict(detector.colour_network.state_dict())
    torch.testing.assert_close(film.detect(images).anomaly_map, plain.detect(images).anomaly_map)


def test_images_do_not_know_of_the_third_network(detector: MedzsadMini) -> None:
    torch.manual_seed(1)
    images = torch.rand(3, 3, 50, 60)
    without = MedzsadMini(image_size=48, slice_size=64, network=SMALL, colour=True)
    without.network.load_state_dict(detector.network.state_dict())
    without.colour_network.load_state_dict(detector.colour_network.state_dict())
    for one, other in zip(detector(images), without(images), strict=True):
        assert torch.equal(one, other)


def test_the_threshold_of_volumes_is_their_own_until_a_caller_sets_one(detector: MedzsadMini) -> None:
    assert (detector.threshold, detector.for_volume().threshold) == (0.5, 0.2)
    detector.threshold = 0.7
    try:
        assert detector.for_volume().threshold == 0.7
    finally:
        detector.threshold = 0.5
    assert MedzsadMini(image_size=48, network=SMALL, threshold=0.4).for_volume().threshold == 0.4


def test_checkpoint_round_trip(detector: MedzsadMini, tmp_path: Path) -> None:
    save_checkpoint(detector.for_volume().to_checkpoint(), tmp_path / "mini.safetensors")
    again = MedzsadMini.from_checkpoint(read_checkpoint(tmp_path / "mini.safetensors"))
    assert again.settings == detector.settings
    assert (again.threshold, again.for_volume().threshold) == (0.5, 0.2)
    found, expected = (d.for_volume()(slices(2)).anomaly_map for d in (again, detector))
    np.testing.assert_allclose(found, expected, atol=2e-3)
