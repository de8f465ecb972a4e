"""medzsad-mini's network for colours on EfficientNet-Lite0: its checkpoint, and which images it sees."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.colour import ENCODER, ColourNetwork
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.errors import ModelNotReady
from medzsad.scans.scan import Modality

SMALL = {"widths": (8, 8, 16, 16), "depth": 1, "heads": 2, "pixel_width": 8}


@pytest.fixture(scope="module")
def detector() -> MedzsadMini:
    torch.manual_seed(0)
    return MedzsadMini(image_size=48, network=SMALL, colour="lite0", photographs=True)


def pictures() -> tuple[Tensor, Tensor, Tensor]:
    """In colour, grey and filling the picture, grey with air around."""
    noise = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(3)) * 0.8 + 0.2
    surface = noise[:, :1].expand(-1, 3, -1, -1).contiguous()
    scan = surface.clone()
    scan[..., :6, :6] = 0
    return noise, surface, scan


@pytest.mark.parametrize("side", [48, 144])
def test_the_map_has_half_the_side_of_the_image(side: int) -> None:
    pixel, image = ColourNetwork()(torch.rand(2, 3, side, side))
    assert pixel.shape == (2, 2, side // 2, side // 2)
    assert image.shape == (2, 2)
    pixel.sum().backward()


def test_a_checkpoint_holds_the_decoder_and_names_the_encoder(detector: MedzsadMini, tmp_path: Path) -> None:
    made = detector.to_checkpoint()
    assert not any(ENCODER in name for name in made.tensors)
    assert made.settings["colour"] == "lite0"
    assert made.settings["encoder"] == detector.colour_network.encoder.digest
    save_checkpoint(made, tmp_path / "mini.safetensors")
    again = MedzsadMini.from_checkpoint(read_checkpoint(tmp_path / "mini.safetensors"))
    for image in pictures():
        torch.testing.assert_close(again(image).anomaly_map, detector(image).anomaly_map, atol=5e-3, rtol=0)
    for settings, reason in (({"encoder": "0" * 64}, "another EfficientNet"), ({"colour": "vgg"}, "lite0")):
        other = dataclasses.replace(made, settings={**made.settings, **settings})
        with pytest.raises(ModelNotReady, match=reason):
            MedzsadMini.from_checkpoint(other)
    few = {name: tensor for name, tensor in made.tensors.items() if "fuse_8" not in name}
    with pytest.raises(ModelNotReady, match="does not fit"):
        MedzsadMini.from_checkpoint(dataclasses.replace(made, tensors=few))


def test_colours_or_the_modality_decide(detector: MedzsadMini) -> None:
    colour, surface, scan = pictures()
    assert detector.route(torch.cat([colour, surface, scan])).tolist() == [1, 0, 0]
    grey = MedzsadMini(image_size=48, network=SMALL)
    grey.network.load_state_dict(detector.network.state_dict())
    assert torch.equal(detector(scan).anomaly_map, grey(scan).anomaly_map)
    for modality in (Modality.CT, Modality.MR, Modality.XRAY):
        known = detector.for_modality(modality)
        assert torch.equal(known(colour).anomaly_map, grey(colour).anomaly_map)
    for modality in (Modality.US, Modality.RGB):
        known = detector.for_modality(modality)
        assert not torch.equal(known(surface).anomaly_map, grey(surface).anomaly_map)
        assert torch.equal(known(colour).anomaly_map, detector(colour).anomaly_map)
    assert detector.for_modality(Modality.GREY) is detector
    assert grey.for_modality(Modality.MR) is grey
    former = MedzsadMini(image_size=48, network=SMALL, colour=True)
    assert (former.network_for(Modality.US), former.network_for(Modality.RGB)) == (0, None)
    assert "photographs" not in former.to_checkpoint().settings


def test_a_batch_equals_its_images_one_by_one(detector: MedzsadMini) -> None:
    images = torch.cat(pictures())
    whole = detector(images)
    for index, image in enumerate(images):
        for ours, expected in zip(whole, detector(image[None]), strict=True):
            torch.testing.assert_close(ours[index], expected[0], atol=1e-5, rtol=1e-4)


def test_photographs_have_a_threshold_of_their_own(detector: MedzsadMini) -> None:
    assert "colour_threshold" not in detector.to_checkpoint().settings
    settings = {"threshold": 0.2, "colour_threshold": 0.4}
    own = MedzsadMini(image_size=48, network=SMALL, colour="lite0", photographs=True, **settings)
    own.load_state_dict(detector.state_dict())
    colour, surface, scan = pictures()
    for images, threshold in ((colour, 0.4), (surface, 0.2), (torch.cat([colour, scan, colour]), 0.4)):
        assert own.for_images(images).threshold == threshold
        assert detector.for_images(images).threshold == detector.threshold
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
    for ours, expected in zip(
        own(torch.cat([colour, scan])), detector(torch.cat([colour, scan])), strict=True
    ):
        assert torch.equal(ours, expected)
    stored = MedzsadMini.from_checkpoint(own.to_checkpoint())
    assert (stored.colour_threshold, stored.threshold) == (0.4, 0.2)


def test_ultrasound_may_have_a_network_of_its_own_over_the_same_encoder(
    detector: MedzsadMini, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    settings = {"threshold": 0.2, "ultrasound": True, "ultrasound_threshold": 0.3, "colour_threshold": 0.4}
    own = MedzsadMini(image_size=48, network=SMALL, colour="lite0", photographs=True, **settings)
    own.network.load_state_dict(detector.network.state_dict())
    own.colour_network.load_state_dict(detector.colour_network.state_dict())
    assert own.ultrasound_network.encoder is own.colour_network.encoder
    colour, surface, scan = pictures()
    whole = torch.cat([colour, surface, scan])
    assert torch.equal(own(whole).anomaly_map, detector(whole).anomaly_map)  # nothing says that it is one
    for modality in (Modality.RGB, Modality.MR):
        known, former = own.for_modality(modality), detector.for_modality(modality)
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
