"""The stage of medzsad-mini's training for images in colour: repeatable, resumable, the encoder frozen."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.detectors.mini.model import MedzsadMini

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("colour_stage")


@pytest.fixture(autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(tool: ModuleType, work: Path, stop_after: int | None = None, seed: int = 7) -> Path:
    work.mkdir(exist_ok=True)
    recipe = tool.ColourRecipe(
        size=48, shown=48, chunks=2, chunk=4, steps=4, batch=3, warm=2, horizon=8, cooldown=2
    )
    args = SimpleNamespace(work=str(work), seed=seed, steps_factor=1.0, stop_after=stop_after, save_every=100)
    assert tool.train_colour(args, recipe) == (stop_after is None)
    return work / "colour.safetensors"


@pytest.mark.slow
def test_a_repetition_and_a_stopped_run_give_the_same_weights_bit_for_bit(
    tool: ModuleType, tmp_path: Path
) -> None:
    first = read_checkpoint(run(tool, tmp_path / "first"))
    again = read_checkpoint(run(tool, tmp_path / "again"))
    assert not run(tool, tmp_path / "stopped", stop_after=2).exists()
    resumed = read_checkpoint(run(tool, tmp_path / "stopped"))
    other = read_checkpoint(run(tool, tmp_path / "other", seed=8))
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, again.tensors[name])
        assert torch.equal(tensor, resumed.tensors[name])
    assert any(not torch.equal(tensor, other.tensors[name]) for name, tensor in first.tensors.items())
    assert first.training["images_seen"] == 12
    assert not any(name.startswith("encoder.") for name in first.tensors)
    assert first.settings["encoder"] == MedzsadMini(image_size=48, colour="lite0").encoder_digest


def test_the_decoder_is_given_each_image_and_its_mirror_image(tool: ModuleType, tmp_path: Path) -> None:
    network = tool.ColourNetwork()
    recipe = tool.ColourRecipe(size=48, shown=48, chunk=3)
    path = tool.make_features(network, SimpleNamespace(work=str(tmp_path), seed=7), recipe, 0)
    levels, masks, labels = tool.read_features([path])
    assert [tuple(level.shape) for level in levels][:2] == [(6, 24, 16, 16), (6, 40, 8, 8)]
    assert torch.equal(masks[3:], masks[:3].flip(-1))
    assert torch.equal(labels[3:], labels[:3])


def test_a_stage_goes_on_from_another(tool: ModuleType, tmp_path: Path) -> None:
    first = read_checkpoint(run(tool, tmp_path))
    recipe = tool.ColourRecipe(
        "more", "colour", size=48, shown=48, chunks=1, chunk=4, steps=2, batch=2, rate=0
    )
    args = SimpleNamespace(work=str(tmp_path), seed=7, steps_factor=1.0, stop_after=None, save_every=100)
    assert tool.train_colour(args, recipe)
    second = read_checkpoint(tmp_path / "more.safetensors")
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name])  # its rate is 0
    assert second.training["init"] == first.training


def test_radiology_is_grey_looks_and_slices_of_heads(tool: ModuleType) -> None:
    from synthetic.heads import INDEX, NAMES, Head

    tissues = np.zeros((40, 40, 40), np.uint8)
    tissues[8:32, 8:32, 8:32] = INDEX["cortex"]
    tissues[12:28, 12:28, 12:28] = INDEX["white"]
    head = Head(tissues, np.bincount(tissues.ravel(), minlength=len(NAMES)), np.array([[8, 31]] * 3))
    recipe = replace(tool.RADIOLOGY, size=48, shown=48, chunk=6)
    made = tool.make_images(3, recipe, tool.Sources([head], [], None))
    assert made.images.shape == (6, 3, 48, 48)
    assert torch.equal(made.images[:, 0], made.images[:, 2])
    assert made.images.min() == 0
    assert made.images.max() <= 1
    assert torch.equal(made.masks.flatten(1).any(1).long(), made.labels)
    looks = tool.make_images(3, replace(recipe, heads=0.0), None)
    assert looks.images.shape == made.images.shape
    for sources in (None, tool.Sources([], [], None)):
        with pytest.raises(ValueError, match="needs label maps"):
            tool.make_images(3, recipe, sources)
