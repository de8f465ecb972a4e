"""The stage that trains the U-Net beside the network for slices: repeatable, and nothing else moves."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from mini_cases import SMALL, network_for_slices

from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.slices import SliceNetwork

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("unet_stage")


@pytest.fixture(autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(tool: ModuleType, work: Path, stop_after: int | None = None, seed: int = 7) -> Path:
    work.mkdir(exist_ok=True)
    save_checkpoint(network_for_slices(), work / "slice.safetensors")
    common = {"shares": (0, 0, 1, 0), "size": 64, "batch": 2, "rate": 1e-2, "warm": 1}
    parts = (tool.UNetPart(steps=4, **common), tool.UNetPart(steps=2, below=0.4, **common))
    args = SimpleNamespace(
        work=str(work), data=None, seed=seed, steps_factor=1.0, stop_after=stop_after, save_every=100
    )
    assert tool.train_unet(args, parts) == (stop_after is None)
    return work / "unet.safetensors"


@pytest.mark.slow
def test_a_repetition_and_a_stopped_run_give_the_same_weights_bit_for_bit(
    tool: ModuleType, tmp_path: Path
) -> None:
    first = read_checkpoint(run(tool, tmp_path / "first"))
    again = read_checkpoint(run(tool, tmp_path / "again"))
    assert not run(tool, tmp_path / "stopped", stop_after=3).exists()
    resumed = read_checkpoint(run(tool, tmp_path / "stopped"))
    other = read_checkpoint(run(tool, tmp_path / "other", seed=8))
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, again.tensors[name])
        assert torch.equal(tensor, resumed.tensors[name])
    assert any(not torch.equal(t, other.tensors[name]) for name, t in first.tensors.items())


def test_a_part_can_start_from_the_averaged_weights_as_a_file_holds_them(
    tool: ModuleType, tmp_path: Path
) -> None:
    run(tool, tmp_path)
    args = SimpleNamespace(work=str(tmp_path))
    state = torch.load(tmp_path / "unet-1-state.pt", weights_only=True)
    last, averaged = (tool.weights_after(args, "unet", 1, averaged=averaged) for averaged in (False, True))
    written = read_checkpoint(tmp_path / "unet.safetensors").tensors
    for name, tensor in averaged.items():
        assert torch.equal(tensor, written[f"{tool.PREFIX}{name}"].float())
        assert torch.equal(last[name], state["network"][name])
    assert any(not torch.equal(last[name], tensor) for name, tensor in averaged.items())


def test_the_network_beside_it_stays_as_it_was(tool: ModuleType, tmp_path: Path) -> None:
    made = read_checkpoint(run(tool, tmp_path))
    start = read_checkpoint(tmp_path / "slice.safetensors")
    assert made.settings == {**start.settings, "unet": True}
    assert made.training["seed"] == start.training["seed"]
    assert made.training["unet"]["images_seen"] == 12
    assert all(torch.equal(made.tensors[name], tensor) for name, tensor in start.tensors.items())
    assert all(name.startswith("unet.") for name in set(made.tensors) - set(start.tensors))
    network = SliceNetwork(unet_share=0.5, **SMALL)
    network.load_state_dict({name: tensor.float() for name, tensor in made.tensors.items()})
