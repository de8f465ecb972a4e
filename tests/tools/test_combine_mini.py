"""Two networks of medzsad-mini put into one detector, and calibrated."""

from __future__ import annotations

import importlib
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.mini.colour import ColourNetwork, learned
from medzsad.detectors.mini.model import MedzsadMini, platt
from medzsad.detectors.mini.slices import SliceNetwork
from medzsad.detectors.normal_scores import NormalScores

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("combine_mini")


def networks() -> tuple[MedzsadMini, MedzsadMini]:
    torch.manual_seed(0)
    return MedzsadMini(image_size=64, threshold=0.4), MedzsadMini(image_size=64, threshold=0.6)


def records(grey: MedzsadMini, colour: MedzsadMini) -> tuple[Checkpoint, Checkpoint]:
    made = ((grey, {"seed": 7}), (colour, {"seed": 11}))
    first, second = (replace(d.to_checkpoint(), training=r) for d, r in made)
    return first, second


def test_each_network_serves_its_images_and_sizes_must_agree(tool: ModuleType) -> None:
    grey, colour = networks()
    first, second = records(grey, colour)
    both = tool.combine(first, second)
    assert both.training == {"seed": 7, "colour": {"seed": 11}}
    detector = MedzsadMini.from_checkpoint(both)
    assert detector.threshold == 0.4
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for picture, one in ((image[:, :1].expand(-1, 3, -1, -1), grey), (image, colour)):
        torch.testing.assert_close(detector(picture).anomaly_map, one(picture).anomaly_map, atol=2e-3, rtol=0)
    # Combining anew replaces the second network.
    again = MedzsadMini.from_checkpoint(tool.combine(both, first))
    torch.testing.assert_close(again(image).anomaly_map, grey(image).anomaly_map, atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match="image_size differs"):
        tool.combine(first, MedzsadMini(image_size=80).to_checkpoint())


@pytest.mark.slow
def test_calibrated_values_are_shares_and_keep_their_order(tool: ModuleType) -> None:
    both = tool.combine(*records(*networks()))
    plain = MedzsadMini.from_checkpoint(both)
    made = tool.calibrate(both, None, 24)
    detector = MedzsadMini.from_checkpoint(made)
    # Networks that know nothing: about half of all images are abnormal, and few of all pixels.
    for kind in ("grey", "colour", "slice"):
        look = tool.KINDS[kind][0]
        seen = tool.look_at(detector, kind, look, None, 24)
        assert (seen.scores.mean() - 0.5).abs() < 0.2
        assert (seen.maps.mean() - seen.masks.mean()).abs() < 0.06
        before = tool.look_at(plain, kind, look, None, 24)
        slope, offset = detector.calibration[kind]["map"]
        torch.testing.assert_close(seen.maps, platt(before.maps, slope, offset), rtol=0, atol=1e-4)
    assert 0 < detector.threshold < 1
    # Slices and grey images decide on one threshold, images in colour on another.
    assert made.training["held_out_dice"].keys() == {"grey", "colour"}
    assert detector.own_thresholds.keys() == {"colour"}
    grey = {}
    for kind in tool.GREY:
        looks = {
            look: tool.look_at(detector, kind, look, None, 24) for look in tool.KINDS[kind] if look != "real"
        }
        grey |= {f"{look}, {kind}": tool.HeldOut(*(t[12:] for t in seen)) for look, seen in looks.items()}
    assert tool.best_threshold(grey)[0] == detector.threshold
    errors = made.training["calibration_error"]
    assert {name.split(",")[0] for name in errors} >= {"brain", "ultrasound", "endoscopy", "skin"}


@pytest.mark.slow
def test_a_network_for_slices_is_added_and_calibrated_alone(tool: ModuleType) -> None:
    torch.manual_seed(0)
    small = {"widths": (8, 8, 16, 16), "depth": 1, "heads": 2, "pixel_width": 8}
    images = MedzsadMini(image_size=48, network=small, colour=True)
    weights = {name: tensor.half() for name, tensor in SliceNetwork(**small).state_dict().items()}
    slices = Checkpoint("mini", weights, {"image_size": 64, "network": small}, {"seed": 7})
    start = replace(images.to_checkpoint(), training={"seed": 1})
    whole = tool.add_slices(start, slices, 3.0)
    made = tool.calibrate_slices(whole, tool.load_sources(None), 24)
    detector = MedzsadMini.from_checkpoint(made)
    assert (detector.for_volume().image_size, detector.for_volume().neighbour_mm) == (64, 3.0)
    assert detector.for_volume().threshold == made.settings["slice_threshold"]
    assert made.training["slice"].keys() >= {"seed", "calibration_error", "held_out_dice"}
    assert made.settings["calibration"]["slice"] != start.settings["calibration"]["slice"]
    for key in ("threshold", "image_size", "colour", "flip"):
        assert made.settings[key] == start.settings[key]
    picture = torch.rand(2, 3, 50, 60, generator=torch.Generator().manual_seed(1))
    before = MedzsadMini.from_checkpoint(start)
    for one, other in zip(detector(picture), before(picture), strict=True):
        assert torch.equal(one, other)
    again = tool.add_slices(made, slices, 2.0)  # replaces it
    assert again.tensors.keys() == made.tensors.keys()
    # A detector of two other networks for images has none for slices.
    assert MedzsadMini.from_checkpoint(tool.combine(made, start)).slice_network is None
    with pytest.raises(ValueError, match="different sizes"):
        tool.add_slices(MedzsadMini(image_size=48).to_checkpoint(), slices, 3.0)


@pytest.mark.slow
def test_a_network_for_photographs_is_added_and_calibrated_alone(tool: ModuleType) -> None:
    torch.manual_seed(0)
    small = {"widths": (8, 8, 16, 16), "depth": 1, "heads": 2, "pixel_width": 8}
    former = MedzsadMini(image_size=48, network=small, colour=True, neighbour_mm=3.0)
    start = replace(former.to_checkpoint(), training={"seed": 1, "slice": {"seed": 7}})
    network = ColourNetwork()
    weights = {name: tensor.half() for name, tensor in learned(network).items()}
    settings = {"image_size": 48, "colour": "lite0", "encoder": network.encoder.digest}
    part = Checkpoint("mini", weights, settings, {"seed": 3})
    made = tool.calibrate_part(tool.add_colour(start, part), "colour", 24)
    assert "colour_threshold" in made.settings
    assert made.training["slice"] == {"seed": 7}
    assert made.training["colour"].keys() >= {"seed", "calibration_error", "held_out_dice"}
    assert made.settings["calibration"]["colour"] != start.settings["calibration"]["colour"]
    for key in ("threshold", "image_size", "slice_size", "neighbour_mm", "flip"):
        assert made.settings[key] == start.settings[key]
    with pytest.raises(ValueError, match="different encoders"):
        tool.add_ultrasound(start, part)
    colours = made.settings["calibration"]["colour"]
    made = tool.calibrate_part(tool.add_ultrasound(made, part), "ultrasound", 24)
    assert "ultrasound_threshold" in made.settings
    assert made.settings["calibration"]["colour"] == colours
    detector, before = MedzsadMini.from_checkpoint(made), MedzsadMini.from_checkpoint(start)
    assert detector.colour == "lite0"
    assert detector.photographs
    scan = torch.rand(2, 1, 50, 60, generator=torch.Generator().manual_seed(1)).expand(-1, 3, -1, -1).clone()
    scan[..., :10, :10] = 0
    for one, other in zip(detector(scan), before(scan), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(detector.for_volume()(scan), before.for_volume()(scan), strict=True):
        assert torch.equal(one, other)


def test_scores_of_normal_heads_come_with_the_network_for_slices_and_go_with_it(tool: ModuleType) -> None:
    small = {"widths": (8, 8, 16, 16), "depth": 1, "heads": 2, "pixel_width": 8}
    images = MedzsadMini(image_size=48, network=small, colour=True).to_checkpoint()
    weights = {name: tensor.half() for name, tensor in SliceNetwork(**small).state_dict().items()}
    scores = NormalScores.of("MR head", "made", [0.1, 0.2, 0.4])
    known = {"image_size": 64, "network": small, "normal_scores": [asdict(scores)]}
    whole = tool.add_slices(images, Checkpoint("mini", weights, known), 3.0)
    detector = MedzsadMini.from_checkpoint(whole)
    assert detector.normal_scores == (scores,)
    assert MedzsadMini.from_checkpoint(detector.to_checkpoint()).normal_scores == (scores,)
    other = tool.add_slices(whole, Checkpoint("mini", weights, {"image_size": 64, "network": small}), 3.0)
    assert MedzsadMini.from_checkpoint(other).normal_scores == ()
    assert MedzsadMini.from_checkpoint(tool.combine(whole, images)).normal_scores == ()


def test_the_calibration_error_is_0_for_shares_and_large_for_boasts(tool: ModuleType) -> None:
    truth = (torch.rand(20_000, generator=torch.Generator().manual_seed(2)) < 0.3).long()
    assert tool.calibration_error(torch.full((20_000,), 0.3), truth) < 0.02
    assert tool.calibration_error(torch.full((20_000,), 0.95), truth) > 0.6
    values = torch.rand(20_000, generator=torch.Generator().manual_seed(3))
    labels = (torch.rand(20_000, generator=torch.Generator().manual_seed(4)) < values).long()
    assert tool.calibration_error(values, labels) < 0.03


def test_platt_scaling_that_changes_nothing_changes_nothing() -> None:
    values = torch.tensor([0.0, 0.3, 1.0])
    assert platt(values, 1.0, 0.0) is values
    shifted = platt(values, 2.0, -1.0)
    assert (shifted.diff() > 0).all()
    assert shifted.min() >= 0
    assert shifted.max() <= 1
