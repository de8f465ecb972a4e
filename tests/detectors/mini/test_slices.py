"""medzsad-mini's network for slices of volumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mini_cases import SMALL, detector_of_slices, slices

from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import UNET_RULES, MedzsadMini
from medzsad.detectors.mini.network import MiniNetwork
from medzsad.detectors.mini.slices import SliceNetwork, slice_features
from medzsad.detectors.volume_intensity import encode


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


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_brain_has_a_map_of_its_own(share: float) -> None:
    network = SliceNetwork(unet_share=share, **SMALL).eval()
    pixel, image, brain = network.marks(slices(2))
    assert (pixel.shape, image.shape, brain.shape) == ((2, 2, 32, 32), (2, 2), (2, 32, 32))
    for each, same in zip(network(slices(2)), (pixel, image), strict=True):
        assert torch.equal(each, same)


def test_a_unet_beside_it_has_its_share_of_pixels_and_half_of_the_brain() -> None:
    torch.manual_seed(0)
    plain, both = SliceNetwork(**SMALL).eval(), SliceNetwork(unet_share=0.3, **SMALL).eval()
    both.load_state_dict({**both.state_dict(), **plain.state_dict()})
    pixel, image, brain = plain.marks(slices(2))
    lesions, its_brain = both.unet(slices(2))
    margin, same, mean = both.marks(slices(2))
    torch.testing.assert_close(
        margin.softmax(1)[:, 1],
        (0.7 * (pixel[:, 1] - pixel[:, 0]) + 0.3 * lesions).sigmoid(),
        atol=1e-6,
        rtol=1e-5,
    )
    torch.testing.assert_close(mean, (brain + its_brain) / 2)
    assert torch.equal(image, same)
    for tensor in both.marks(torch.zeros(1, 3, 48, 48)):  # an empty slice; 48 is no multiple of 32
        assert tensor.isfinite().all()


def test_a_unet_survives_its_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    known = MedzsadMini(image_size=48, slice_size=64, network=SMALL, neighbour_mm=3.0, slice_unet=0.3)
    save_checkpoint(known.to_checkpoint(), tmp_path / "mini.safetensors")
    again = MedzsadMini.from_checkpoint(read_checkpoint(tmp_path / "mini.safetensors"))
    assert again.settings["slice_unet"] == 0.3
    assert again.settings == known.settings
    with torch.no_grad():
        found, expected = (d.for_volume().detect(slices(2)) for d in (again, known))
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=2e-3)
    np.testing.assert_allclose(found.brain, expected.brain, atol=2e-3)


def test_candidates_need_a_least_peak_with_a_unet_in_grey_volumes_at_its_own_threshold() -> None:
    assert detector_of_slices().for_volume().volume_rules.least_peak == 0
    settings = {"image_size": 48, "slice_size": 64, "network": SMALL, "colour": True, "slice_threshold": 0.2}
    detector = MedzsadMini(neighbour_mm=3.0, slice_unet=0.3, **settings)
    volume = detector.for_volume()
    for seen in (detector, volume, volume.for_volume()):
        assert seen.volume_rules == UNET_RULES
    undivided = replace(UNET_RULES, least_peak=0.0, relative_volume=0.0, dip=1.0)
    assert UNET_RULES.for_any_values() == undivided
    assert detector.for_volume(colour=True).volume_rules == undivided
    detector.threshold = 0.3  # a caller's
    assert detector.for_volume().threshold == 0.3
    assert detector.for_volume().volume_rules == undivided
    with pytest.raises(ValueError, match="neighbour_mm"):
        MedzsadMini(slice_unet=0.3, **settings)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        MedzsadMini(neighbour_mm=3.0, slice_unet=1.5, **settings)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    detector = detector_of_slices()
    save_checkpoint(detector.for_volume().to_checkpoint(), tmp_path / "mini.safetensors")
    again = MedzsadMini.from_checkpoint(read_checkpoint(tmp_path / "mini.safetensors"))
    assert again.settings == detector.settings
    assert (again.threshold, again.for_volume().threshold) == (0.5, 0.2)
    found, expected = (d.for_volume()(slices(2)).anomaly_map for d in (again, detector))
    np.testing.assert_allclose(found, expected, atol=2e-3)
