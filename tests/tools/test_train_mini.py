"""The training of medzsad-mini: the seed decides, a stopped run goes on, stages build on each other."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini.colour import ColourNetwork, learned
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.mini.slices import SliceNetwork

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    module = importlib.import_module("train_mini")
    monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setitem(
        module.STAGES, "common", module.Stage("", module.SHARES, False, 64, 4, 6, 1e-3, 0.1, 0.9, 0)
    )
    monkeypatch.setitem(
        module.STAGES, "grey", module.Stage("common", module.GREY, True, 64, 4, 2, 1e-3, 0.1, 0.9, 1)
    )
    return module


@pytest.fixture(autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(tool: ModuleType, work: Path, stage: str = "common", *options: str) -> Path:
    """One stage in this process; returns the file of its weights."""
    work.mkdir(exist_ok=True)
    common = ["--work", str(work), "--data", "", "--processes", "1", "--image-size", "64", "--held-out", "1"]
    meeting = work / f"meeting-{len(list(work.iterdir()))}"
    tool.train(0, stage, tool.arguments([*common, *options]), str(meeting))
    return work / f"{stage}.safetensors"


@pytest.mark.slow
def test_a_repetition_and_a_stopped_run_give_the_same_weights_bit_for_bit(
    tool: ModuleType, tmp_path: Path
) -> None:
    first = read_checkpoint(run(tool, tmp_path / "first"))
    again = read_checkpoint(run(tool, tmp_path / "again"))
    stopped = run(tool, tmp_path / "stopped", "common", "--stop-after", "3")
    assert not stopped.exists()
    resumed = read_checkpoint(run(tool, tmp_path / "stopped"))
    other = read_checkpoint(run(tool, tmp_path / "other", "common", "--seed", "8"))
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, again.tensors[name])
        assert torch.equal(tensor, resumed.tensors[name])
    assert any(not torch.equal(t, other.tensors[name]) for name, t in first.tensors.items())
    assert first.training["images_seen"] == 24


@pytest.mark.slow
def test_a_later_stage_starts_from_the_earlier_ones_weights(tool: ModuleType, tmp_path: Path) -> None:
    start = read_checkpoint(run(tool, tmp_path))
    grey = read_checkpoint(run(tool, tmp_path, "grey"))
    assert grey.training["init"]["images_seen"] == start.training["images_seen"]
    moved = torch.cat([(grey.tensors[k].float() - v.float()).flatten() for k, v in start.tensors.items()])
    fresh = MedzsadMini(image_size=64).to_checkpoint()
    apart = torch.cat([(fresh.tensors[k].float() - v.float()).flatten() for k, v in start.tensors.items()])
    assert 0 < moved.norm() < 0.2 * apart.norm()


@pytest.mark.slow
def test_the_whole_recipe_puts_all_networks_together(tool: ModuleType, tmp_path: Path) -> None:
    from combine_mini import OTHER_SCORES, SLICE_THRESHOLD, UNET_SHARE  # beside the tool

    small = {"widths": (8, 8, 16, 16), "depth": 1, "heads": 2, "pixel_width": 8}
    torch.manual_seed(0)
    save_checkpoint(MedzsadMini(image_size=48, network=small).to_checkpoint(), tmp_path / "grey.safetensors")
    parts = {}
    for name in ("colour", "colour_ultrasound", "colour_radiology"):
        network = ColourNetwork()
        parts[name] = {key: tensor.half() for key, tensor in learned(network).items()}
        settings = {"image_size": 48, "colour": "lite0", "encoder": network.encoder.digest}
        save_checkpoint(Checkpoint("mini", parts[name], settings, {}), tmp_path / f"{name}.safetensors")
    network = SliceNetwork(unet_share=0.5, **small)  # what the stage "unet" writes holds both
    slices = {key: tensor.half() for key, tensor in network.state_dict().items()}
    settings = {"image_size": 48, "network": small, "unet": True}
    save_checkpoint(Checkpoint("mini", slices, settings, {}), tmp_path / "unet.safetensors")
    made = tool.put_together(SimpleNamespace(work=tmp_path, data=None, shown_size=48, held_out=1))
    names = {"colour": "colour", "ultrasound": "colour_ultrasound", "radiology": "colour_radiology"}
    for prefix, name in names.items():
        assert all(torch.equal(made.tensors[f"{prefix}.{key}"], t) for key, t in parts[name].items())
    assert made.settings["ultrasound"]
    assert all(torch.equal(made.tensors[f"slice.{key}"], tensor) for key, tensor in slices.items())
    detector = MedzsadMini.from_checkpoint(made)
    assert detector.own_thresholds == {"slice": SLICE_THRESHOLD}
    assert detector.slice_unet == UNET_SHARE
    assert detector.opinions.shares == OTHER_SCORES
