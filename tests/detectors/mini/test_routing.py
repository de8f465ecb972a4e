"""Which of medzsad-mini's networks a scan goes through: by its colours, its modality, or as a volume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mini_cases import SMALL, detector_of_images, detector_of_slices, pictures, slices

from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.mini.routing import is_colour
from medzsad.scans.scan import Modality


@pytest.fixture(scope="module")
def of_images() -> MedzsadMini:
    return detector_of_images()


@pytest.fixture(scope="module")
def of_slices() -> MedzsadMini:
    return detector_of_slices()


def test_slices_of_volumes_are_seen_at_their_own_size(of_slices: MedzsadMini) -> None:
    volume, (_, surface, _) = of_slices.for_volume(), pictures()
    assert (of_slices.image_size, volume.image_size) == (48, 64)
    assert of_slices.detect(of_slices.preprocess(surface)).anomaly_map.shape == (1, 24, 24)
    assert volume.detect(volume.preprocess(surface)).anomaly_map.shape == (1, 32, 32)
    # It is the same detector otherwise, and is saved as it was.
    assert next(volume.parameters()) is next(of_slices.parameters())
    assert volume.to_checkpoint().settings == of_slices.to_checkpoint().settings


def test_images_in_colour_have_a_network_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    both = MedzsadMini(image_size=64, network=SMALL, colour=True)
    noise = torch.rand(2, 3, 90, 120, generator=torch.Generator().manual_seed(3))
    grey = noise[:, :1].expand(-1, 3, -1, -1)
    colour = noise * torch.tensor([1.0, 0.3, 0.2]).view(1, 3, 1, 1)
    assert is_colour(torch.cat([grey, colour])).tolist() == [False, False, True, True]
    tinted = (grey + torch.tensor([0.01, 0.0, -0.01]).view(1, 3, 1, 1)).clamp(0, 1)
    assert not is_colour(tinted).any()
    single = MedzsadMini(image_size=64, network=SMALL)
    for images, network in ((grey, both.network), (colour, both.colour_network)):
        single.network.load_state_dict(network.state_dict())
        for ours, expected in zip(both(images), single(images), strict=True):
            torch.testing.assert_close(ours, expected)
    mixed = torch.stack([grey[0], colour[0], grey[1], colour[1]])
    for index, image in enumerate(mixed):
        for ours, expected in zip(both(mixed), both(image[None]), strict=True):
            torch.testing.assert_close(ours[index], expected[0], atol=1e-5, rtol=1e-4)
    save_checkpoint(both.to_checkpoint(), tmp_path / "both.safetensors")
    loaded = MedzsadMini.from_checkpoint(read_checkpoint(tmp_path / "both.safetensors"))
    torch.testing.assert_close(loaded(mixed).anomaly_map, both(mixed).anomaly_map, atol=2e-3, rtol=0)
    assert loaded.settings["colour"] is True


def test_colours_or_the_modality_decide(of_images: MedzsadMini) -> None:
    colour, surface, scan = pictures()
    assert of_images.route(torch.cat([colour, surface, scan])).tolist() == [1, 0, 0]
    grey = MedzsadMini(image_size=48, network=SMALL)
    grey.network.load_state_dict(of_images.network.state_dict())
    assert torch.equal(of_images(scan).anomaly_map, grey(scan).anomaly_map)
    for modality in (Modality.CT, Modality.MR, Modality.XRAY):
        known = of_images.for_modality(modality)
        assert torch.equal(known(colour).anomaly_map, grey(colour).anomaly_map)
    for modality in (Modality.US, Modality.RGB):
        known = of_images.for_modality(modality)
        assert not torch.equal(known(surface).anomaly_map, grey(surface).anomaly_map)
        assert torch.equal(known(colour).anomaly_map, of_images(colour).anomaly_map)
    assert of_images.for_modality(Modality.GREY) is of_images
    assert grey.for_modality(Modality.MR) is grey
    former = MedzsadMini(image_size=48, network=SMALL, colour=True)
    assert (former.network_for(Modality.US), former.network_for(Modality.RGB)) == (0, None)
    assert "photographs" not in former.to_checkpoint().settings


def test_a_mixed_batch_equals_its_images_one_by_one(of_images: MedzsadMini) -> None:
    images = torch.cat(pictures())
    whole = of_images(images)
    for index, image in enumerate(images):
        for ours, expected in zip(whole, of_images(image[None]), strict=True):
            torch.testing.assert_close(ours[index], expected[0], atol=1e-5, rtol=1e-4)


def test_photographs_have_a_threshold_of_their_own(of_images: MedzsadMini) -> None:
    assert "colour_threshold" not in of_images.to_checkpoint().settings
    settings = {"threshold": 0.2, "colour_threshold": 0.4}
    own = detector_of_images(**settings)
    colour, surface, scan = pictures()
    most, half = torch.cat([colour, scan, colour]), torch.cat([colour, scan])
    for images, threshold in ((colour, 0.4), (surface, 0.2), (most, 0.4), (half, 0.2)):
        assert own.for_images(images).threshold == threshold
        assert of_images.for_images(images).threshold == of_images.threshold
    for modality in (Modality.RGB, Modality.US):
        known = own.for_modality(modality)
        assert known.threshold == 0.4
        assert known.for_images(scan) is known
        assert known.to_checkpoint().settings == own.to_checkpoint().settings
        assert known.for_modality(Modality.MR).threshold == 0.2
    changed = own.for_volume()
    assert changed.threshold == 0.2
    changed.threshold = 0.9  # a caller's word holds
    assert changed.for_modality(Modality.US).threshold == 0.9
    for ours, expected in zip(own(half), of_images(half), strict=True):
        assert torch.equal(ours, expected)
    stored = MedzsadMini.from_checkpoint(own.to_checkpoint())
    assert (stored.colour_threshold, stored.threshold) == (0.4, 0.2)


def test_ultrasound_may_have_a_network_of_its_own_over_the_same_encoder(
    of_images: MedzsadMini, tmp_path: Path
) -> None:
    settings = {"threshold": 0.2, "ultrasound": True, "ultrasound_threshold": 0.3, "colour_threshold": 0.4}
    own = detector_of_images(**settings)
    assert own.ultrasound_network.encoder is own.colour_network.encoder
    colour, surface, scan = pictures()
    whole = torch.cat([colour, surface, scan])
    assert torch.equal(own(whole).anomaly_map, of_images(whole).anomaly_map)  # nothing says that it is one
    for modality in (Modality.RGB, Modality.MR):
        known, former = own.for_modality(modality), of_images.for_modality(modality)
        assert torch.equal(known(whole).anomaly_map, former(whole).anomaly_map)
    ultrasound = own.for_modality(Modality.US)
    assert ultrasound.threshold == 0.3
    assert not torch.equal(ultrasound(scan).anomaly_map, own.for_modality(Modality.RGB)(scan).anomaly_map)
    parts = own.networks()
    assert [part.threshold for part in parts] == [0.2, 0.4, 0.3]
    assert torch.equal(parts[2](scan).anomaly_map, ultrasound(scan).anomaly_map)
    (alone,) = ultrasound.networks()
    assert torch.equal(alone(scan).anomaly_map, ultrasound(scan).anomaly_map)
    save_checkpoint(own.to_checkpoint(), tmp_path / "mini.safetensors")
    again = MedzsadMini.from_checkpoint(read_checkpoint(tmp_path / "mini.safetensors"))
    found, expected = (one.for_modality(Modality.US)(scan).anomaly_map for one in (again, own))
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)
    with pytest.raises(ValueError, match="lite0"):
        MedzsadMini(image_size=48, network=SMALL, colour=True, ultrasound=True)


def test_volumes_take_the_third_network_and_images_the_others(of_slices: MedzsadMini) -> None:
    volume, film = of_slices.for_volume(), of_slices.for_volume(colour=True)
    assert (of_slices.neighbour_mm, volume.neighbour_mm, film.neighbour_mm) == (None, 3.0, None)
    images = slices(2)
    raw = volume.detect(images)
    _, image = of_slices.slice_network(images)
    torch.testing.assert_close(raw.image_probability, image.softmax(1)[:, 1])
    assert raw.anomaly_map.shape == (2, 32, 32)
    # Channels that differ are neighbours there, not colours; elsewhere they are colours.
    plain = MedzsadMini(image_size=64, network=SMALL, colour=True)
    plain.network.load_state_dict(of_slices.network.state_dict())
    plain.colour_network.load_state_dict(of_slices.colour_network.state_dict())
    torch.testing.assert_close(film.detect(images).anomaly_map, plain.detect(images).anomaly_map)


def test_images_do_not_know_of_the_third_network(of_slices: MedzsadMini) -> None:
    torch.manual_seed(1)
    images = torch.rand(3, 3, 50, 60)
    without = MedzsadMini(image_size=48, slice_size=64, network=SMALL, colour=True)
    without.network.load_state_dict(of_slices.network.state_dict())
    without.colour_network.load_state_dict(of_slices.colour_network.state_dict())
    for one, other in zip(of_slices(images), without(images), strict=True):
        assert torch.equal(one, other)


def test_the_threshold_of_volumes_is_their_own_until_a_caller_sets_one(of_slices: MedzsadMini) -> None:
    assert (of_slices.threshold, of_slices.for_volume().threshold) == (0.5, 0.2)
    of_slices.threshold = 0.7
    try:
        assert of_slices.for_volume().threshold == 0.7
    finally:
        of_slices.threshold = 0.5
    assert MedzsadMini(image_size=48, network=SMALL, threshold=0.4).for_volume().threshold == 0.4
