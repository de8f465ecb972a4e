"""Calibration of medzsad-mini's networks: values become shares, and each network is calibrated alone."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mini_cases import SMALL, detector_of_images, detector_of_slices

from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.mini.model import MedzsadMini, platt

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("calibrate_mini")


def record_of(detector: MedzsadMini, **training: object) -> Checkpoint:
    return replace(detector.to_checkpoint(), training=training)


@pytest.mark.slow
def test_calibrated_values_are_shares_and_keep_their_order(tool: ModuleType) -> None:
    torch.manual_seed(0)
    both = record_of(MedzsadMini(image_size=64, network=SMALL, colour=True), seed=7)
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


def test_slices_are_calibrated_alone(tool: ModuleType) -> None:
    before = record_of(detector_of_slices(), seed=1, slice={"seed": 7})
    after = tool.calibrate_slices(before, tool.Sources([], [], None), 24)
    kept = {kind: pairs for kind, pairs in before.settings["calibration"].items() if kind != "slice"}
    pairs = after.settings["calibration"]["slice"]
    assert pairs != before.settings["calibration"]["slice"]
    changed = {"calibration": {**kept, "slice": pairs}, "slice_threshold": after.settings["slice_threshold"]}
    assert after.settings == {**before.settings, **changed}
    assert MedzsadMini.from_checkpoint(after).for_volume().threshold == after.settings["slice_threshold"]
    assert after.training["seed"] == 1
    assert after.training["slice"].keys() == {"seed", "calibration_error", "held_out_dice"}
    assert after.training["slice"]["calibration_error"].keys() == {"looks"}  # heads and volumes are not there
    for name, tensor in before.tensors.items():
        assert torch.equal(after.tensors[name], tensor)


@pytest.mark.parametrize("kind", ["colour", "ultrasound"])
def test_colours_and_ultrasound_are_calibrated_alone(tool: ModuleType, kind: str) -> None:
    before = record_of(detector_of_images(ultrasound=True), **{kind: {"seed": 3}})
    after = tool.calibrate_part(before, kind, 24)
    kept = {name: pairs for name, pairs in before.settings["calibration"].items() if name != kind}
    pairs = after.settings["calibration"][kind]
    assert pairs != before.settings["calibration"][kind]
    changed = {"calibration": {**kept, kind: pairs}, f"{kind}_threshold": after.settings[f"{kind}_threshold"]}
    assert after.settings == {**before.settings, **changed}
    assert MedzsadMini.from_checkpoint(after).own_thresholds == {kind: changed[f"{kind}_threshold"]}
    assert after.training[kind]["calibration_error"].keys() == set(tool.KINDS[kind])


def test_platt_scaling_is_found_again(tool: ModuleType) -> None:
    r = torch.Generator().manual_seed(6)
    values = torch.rand(40_000, generator=r)
    labels = (torch.rand(40_000, generator=r) < platt(values, 0.5, -1.0)).long()
    assert tool.fit(values, labels) == pytest.approx((0.5, -1.0), abs=0.05)


def test_scalings_are_fitted_on_one_half_and_judged_on_the_other(tool: ModuleType) -> None:
    r = torch.Generator().manual_seed(7)
    scores, masks = torch.rand(400, generator=r), torch.rand(400, 6, 6, generator=r).round()
    labels = (torch.rand(400, generator=r) < scores).long()
    labels[200:] = 1 - labels[200:]  # the second half says the opposite
    looks = {"look": tool.HeldOut(0.25 + 0.5 * masks, scores, scores, masks, labels)}
    pairs, errors = tool.scale(looks, 400)
    assert pairs["score"] == pairs["probability"]
    assert pairs["score"][0] > 0.5
    assert errors["look"]["score"] > 0.3
    assert errors["look"]["map"] < 0.01
    assert torch.equal(looks["look"].labels, labels[200:])


def test_the_threshold_is_between_lesions_and_all_else_and_looks_count_alike(tool: ModuleType) -> None:
    masks = torch.zeros(2, 8, 8)
    masks[:, 2:4, 2:4] = 1
    label = torch.ones(2)
    clear = tool.HeldOut(0.2 + 0.4 * masks, label, label, masks, label)  # 0.2 outside, 0.6 inside
    threshold, dice = tool.best_threshold({"clear": clear})
    assert 0.2 < threshold <= 0.6
    assert dice == 1
    faint = clear._replace(maps=0.05 + 0.25 * masks)  # 0.3 inside
    threshold, dice = tool.best_threshold({"clear": clear, "faint": faint})
    assert 0.2 < threshold <= 0.3
    assert dice == 1


def test_the_calibration_error_is_0_for_shares_and_large_for_boasts(tool: ModuleType) -> None:
    truth = (torch.rand(20_000, generator=torch.Generator().manual_seed(2)) < 0.3).long()
    assert tool.calibration_error(torch.full((20_000,), 0.3), truth) < 0.02
    assert tool.calibration_error(torch.full((20_000,), 0.95), truth) > 0.6
    values = torch.rand(20_000, generator=torch.Generator().manual_seed(3))
    labels = (torch.rand(20_000, generator=torch.Generator().manual_seed(4)) < values).long()
    assert tool.calibration_error(values, labels) < 0.03
