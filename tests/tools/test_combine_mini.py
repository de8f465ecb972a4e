"""Networks of medzsad-mini put into one detector; how they are calibrated is test_calibrate_mini's."""

from __future__ import annotations

import importlib
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mini_cases import SMALL, detector_of_images, network_for_colours, network_for_slices, pictures, slices

from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.mini.slices import SliceUNet
from medzsad.detectors.normal_scores import NormalScores
from medzsad.detectors.volume_rules import NO_RULES

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("combine_mini")


def finished(**settings: object) -> Checkpoint:
    """A detector for grey images and colours."""
    torch.manual_seed(0)
    detector = MedzsadMini(image_size=48, network=SMALL, colour=True, **settings)
    return replace(detector.to_checkpoint(), training={"seed": 1, "slice": {"seed": 7}})


def same_images(first: Checkpoint, second: Checkpoint) -> bool:
    """Whether both give the same for grey images and those in colour."""
    one, other = (MedzsadMini.from_checkpoint(checkpoint) for checkpoint in (first, second))
    images = torch.cat(pictures())
    return all(torch.equal(*pair) for pair in zip(one(images), other(images), strict=True))


def test_each_network_serves_its_images_and_sizes_must_agree(tool: ModuleType) -> None:
    torch.manual_seed(0)
    grey, colour = (
        MedzsadMini(image_size=64, network=SMALL, threshold=threshold) for threshold in (0.4, 0.6)
    )
    first = replace(grey.to_checkpoint(), training={"seed": 7})
    second = replace(colour.to_checkpoint(), training={"seed": 11})
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
        tool.combine(first, MedzsadMini(image_size=80, network=SMALL).to_checkpoint())


def test_a_network_for_slices_is_added_and_images_stay(tool: ModuleType) -> None:
    start, part = finished(), network_for_slices()
    whole = tool.add_slices(start, part, 3.0)
    detector = MedzsadMini.from_checkpoint(whole)
    assert (detector.for_volume().image_size, detector.for_volume().neighbour_mm) == (64, 3.0)
    for name, tensor in part.tensors.items():
        assert torch.equal(detector.slice_network.state_dict()[name], tensor.float())
    assert same_images(whole, start)
    assert whole.training == {"seed": 1, "slice": {"seed": 7}}
    for key in ("threshold", "image_size", "colour", "flip"):
        assert whole.settings[key] == start.settings[key]
    calibrated = {**whole.settings["calibration"], "slice": {"map": (2.0, 0.0)}}
    known = replace(whole, settings={**whole.settings, "calibration": calibrated})
    again = tool.add_slices(known, part, 2.0)  # replaces it, and its calibration
    assert again.tensors.keys() == whole.tensors.keys()
    assert again.settings == {**whole.settings, "neighbour_mm": 2.0}
    # A detector of two other networks for images has none for slices.
    assert MedzsadMini.from_checkpoint(tool.combine(whole, start)).slice_network is None
    with pytest.raises(ValueError, match="different sizes"):
        tool.add_slices(MedzsadMini(image_size=48).to_checkpoint(), part, 3.0)


def test_a_unet_beside_the_network_for_slices_has_its_share_and_goes_with_it(tool: ModuleType) -> None:
    part = network_for_slices(unet=True)
    torch.manual_seed(0)
    unet = {f"unet.{name}": tensor.half() for name, tensor in SliceUNet().state_dict().items()}
    whole = tool.add_slices(finished(), replace(part, tensors={**part.tensors, **unet}), 3.0)
    assert MedzsadMini.from_checkpoint(whole).slice_unet == tool.UNET_SHARE
    assert tool.with_slice_threshold(whole).settings["slice_threshold"] == tool.SLICE_THRESHOLD
    without = tool.add_slices(whole, network_for_slices(), 3.0)
    assert not any("unet" in name for name in without.tensors)
    assert MedzsadMini.from_checkpoint(without).slice_unet == 0


def test_networks_for_photographs_and_ultrasound_are_added_and_scans_stay(tool: ModuleType) -> None:
    start, part = finished(neighbour_mm=3.0), network_for_colours()
    with pytest.raises(ValueError, match="different encoders"):
        tool.add_ultrasound(start, part)
    coloured = tool.add_colour(start, part)
    whole = tool.add_ultrasound(coloured, replace(part, training={"seed": 5}))
    assert whole.training == {
        "seed": 1,
        "slice": {"seed": 7},
        "colour": {"seed": 3},
        "ultrasound": {"seed": 5},
    }
    for key in ("threshold", "image_size", "slice_size", "neighbour_mm", "flip"):
        assert whole.settings[key] == start.settings[key]
    detector, before = (MedzsadMini.from_checkpoint(checkpoint) for checkpoint in (whole, start))
    assert detector.colour == "lite0"
    assert detector.photographs
    assert detector.ultrasound_network is not None
    assert same_images(whole, coloured)
    _, _, scan = pictures()
    for ours, expected in zip(detector(scan), before(scan), strict=True):
        assert torch.equal(ours, expected)
    for ours, expected in zip(detector.for_volume()(slices(1)), before.for_volume()(slices(1)), strict=True):
        assert torch.equal(ours, expected)


def test_a_network_for_radiology_has_a_say_in_scores_of_grey_images_alone(tool: ModuleType) -> None:
    part = network_for_colours()
    with pytest.raises(ValueError, match="different encoders"):
        tool.add_radiology(finished(), part)
    start = tool.add_colour(finished(neighbour_mm=3.0), part)
    whole = tool.add_radiology(start, replace(part, training={"seed": 5}))
    assert whole.training["radiology"] == {"seed": 5}
    detector, before = (MedzsadMini.from_checkpoint(checkpoint) for checkpoint in (whole, start))
    assert detector.opinions.shares == tool.OTHER_SCORES
    colour, _, scan = pictures()
    assert torch.equal(detector(scan).anomaly_map, before(scan).anomaly_map)
    assert not torch.equal(detector(scan).image_score, before(scan).image_score)
    assert torch.equal(detector(colour).image_score, before(colour).image_score)
    for ours, expected in zip(detector.for_volume()(slices(1)), before.for_volume()(slices(1)), strict=True):
        assert torch.equal(ours, expected)
    # Another grey network takes nothing of it over.
    again = tool.combine(whole, finished())
    assert MedzsadMini.from_checkpoint(again).opinions is None


def test_scores_of_normal_heads_come_with_the_network_for_slices_and_go_with_it(tool: ModuleType) -> None:
    images = finished()
    scores = NormalScores.of("MR head", "made", [0.1, 0.2, 0.4], NO_RULES)
    whole = tool.add_slices(images, network_for_slices(normal_scores=[asdict(scores)]), 3.0)
    detector = MedzsadMini.from_checkpoint(whole)
    assert detector.normal_scores == (scores,)
    assert MedzsadMini.from_checkpoint(detector.to_checkpoint()).normal_scores == (scores,)
    other = tool.add_slices(whole, network_for_slices(), 3.0)
    assert MedzsadMini.from_checkpoint(other).normal_scores == ()
    assert MedzsadMini.from_checkpoint(tool.combine(whole, images)).normal_scores == ()


def test_the_command_adds_calibrates_and_writes(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEDZSAD_SHARED", raising=False)
    own = detector_of_images(ultrasound=True, colour_threshold=0.3, ultrasound_threshold=0.6)
    save_checkpoint(own.to_checkpoint(), tmp_path / "images.safetensors")
    save_checkpoint(network_for_slices(), tmp_path / "slice.safetensors")
    monkeypatch.chdir(tmp_path)
    command = "combine_mini images.safetensors --slices slice.safetensors --one-threshold out.safetensors"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--count", "24"])
    tool.main()
    assert "looks, slices: calibration error" in capsys.readouterr().out
    written = read_checkpoint(tmp_path / "out.safetensors")
    assert written.settings["calibration"]["slice"] != own.calibration["slice"]
    detector = MedzsadMini.from_checkpoint(written)
    assert detector.slice_threshold is not None
    assert own.own_thresholds == {"colour": 0.3, "ultrasound": 0.6}
    assert detector.own_thresholds == {"slice": detector.slice_threshold}  # --one-threshold


def test_the_command_calibrates_mixed_scores(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEDZSAD_SHARED", raising=False)
    save_checkpoint(detector_of_images().to_checkpoint(), tmp_path / "images.safetensors")
    save_checkpoint(network_for_colours(), tmp_path / "radiology.safetensors")
    monkeypatch.chdir(tmp_path)
    command = "combine_mini images.safetensors --radiology radiology.safetensors out.safetensors"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--count", "24"])
    tool.main()
    assert "brain, mixed: calibration error" in capsys.readouterr().out
    written = read_checkpoint(tmp_path / "out.safetensors")
    assert set(written.settings["calibration"]) >= {"mixed", "radiology", "grey"}
    kept, own = MedzsadMini.from_checkpoint(written).calibration, detector_of_images().calibration
    assert all(kept[kind] == own[kind] for kind in ("grey", "colour", "slice"))
