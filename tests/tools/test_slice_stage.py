"""The stage of medzsad-mini's training for slices: repeatable, resumable, with a loss for each lesion."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.mini.slices import SliceNetwork

TOOLS = Path(__file__).parents[2] / "tools"
SMALL = {"widths": (8, 8, 16, 16), "depth": 1, "heads": 2, "pixel_width": 8}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("slice_stage")


@pytest.fixture(autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(tool: ModuleType, work: Path, stop_after: int | None = None, seed: int = 7) -> Path:
    work.mkdir(exist_ok=True)
    torch.manual_seed(0)
    save_checkpoint(MedzsadMini(image_size=48, network=SMALL).to_checkpoint(), work / "grey.safetensors")
    common = {"size": 48, "batch": 2, "rate": 1e-3, "warm": 2}
    parts = (
        tool.SlicePart(tool.SHARES, tool.KIND_SHARES, steps=2, horizon=8, cooldown=0, **common),
        tool.SlicePart(tool.SHARES, tool.KIND_SHARES, steps=4, horizon=0, cooldown=2, **common),
    )
    args = SimpleNamespace(
        work=str(work), data=None, seed=seed, steps_factor=1.0, stop_after=stop_after, save_every=100
    )
    done = tool.train_slices(args, parts)
    assert done == (stop_after is None)
    return work / "slice.safetensors"


@pytest.mark.slow
def test_a_repetition_and_a_stopped_run_give_the_same_weights_bit_for_bit(
    tool: ModuleType, tmp_path: Path
) -> None:
    first = read_checkpoint(run(tool, tmp_path / "first"))
    again = read_checkpoint(run(tool, tmp_path / "again"))
    assert not run(tool, tmp_path / "stopped", stop_after=3).exists()  # in its second part
    resumed = read_checkpoint(run(tool, tmp_path / "stopped"))
    other = read_checkpoint(run(tool, tmp_path / "other", seed=8))
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, again.tensors[name])
        assert torch.equal(tensor, resumed.tensors[name])
    assert any(not torch.equal(t, other.tensors[name]) for name, t in first.tensors.items())
    assert first.training["images_seen"] == 12
    SliceNetwork(**first.settings["network"]).load_state_dict(
        {name: tensor.float() for name, tensor in first.tensors.items()}
    )


def test_the_rate_rises_falls_and_ends_near_zero(tool: ModuleType) -> None:
    common = {"shares": (1,), "kinds": (1,), "rate": 1.0, "warm": 100}
    for horizon, cooldown in ((1500, 0), (0, 800), (1500, 200)):
        part = tool.SlicePart(steps=1000, horizon=horizon, cooldown=cooldown, **common)
        rates = [tool.rate_at(step, part, 1000) for step in range(1000)]
        assert rates[0] == pytest.approx(0.01)
        assert max(rates) > 0.95
        assert rates[700] > 0.1
        assert rates[999] < (0.01 if cooldown else 0.2)
        assert all(a >= b for a, b in pairwise(rates[100:]))
        # A shortened run has the same course.
        assert tool.rate_at(350, part, 500) == pytest.approx(tool.rate_at(700, part, 1000), rel=0.5)


def test_a_small_lesion_counts_as_much_as_a_large_one(tool: ModuleType) -> None:
    lesions = torch.zeros(1, 32, 32, dtype=torch.int16)
    lesions[0, :16, :16], lesions[0, 24:26, 24:26] = 1, 2
    batch = tool.SliceBatch(torch.zeros(1, 3, 32, 32), lesions, torch.ones(1).long(), -torch.ones(1, 32, 32))

    def missed(place: tuple[slice, slice]) -> float:
        pixel = torch.zeros(1, 2, 16, 16)
        pixel[:, 0] = 20
        pixel[0, 1][place] = 40
        parts = tool.slice_losses(pixel, torch.zeros(1, 2), torch.zeros(1, 16, 16), batch)
        assert parts[tool.TERMS.index("brain")] == 0  # where it is not known
        return float(parts[tool.TERMS.index("lesion")])

    large, small = (slice(0, 8), slice(0, 8)), (slice(12, 13), slice(12, 13))
    assert missed(large) == pytest.approx(missed(small), abs=1e-4)
    assert missed((slice(0, 16), slice(0, 16))) == pytest.approx(0, abs=1e-4)


def test_what_is_not_known_counts_nowhere_and_outside_the_brain_counts_more(tool: ModuleType) -> None:
    lesions = torch.zeros(2, 32, 32, dtype=torch.int16)
    brain = torch.zeros(2, 32, 32)
    brain[:, 8:24, 8:24] = 1
    lesions[brain == 1] = -1
    batch = tool.SliceBatch(torch.zeros(2, 3, 32, 32), lesions, torch.tensor([-1, -1]), brain)

    def terms(row: int, batch) -> dict[str, float]:
        pixel = torch.zeros(2, 2, 16, 16)
        pixel[:, 0] = 8
        pixel[:, 1, row, 6:10] = 16  # marked
        parts = tool.slice_losses(pixel, torch.ones(2, 2), torch.zeros(2, 16, 16), batch)
        assert parts.isfinite().all()
        return dict(zip(tool.TERMS, parts.tolist(), strict=True))

    unknown, outside = terms(8, batch), terms(1, batch)
    assert unknown["image"] == 0
    for name in ("focal", "false", "outside"):
        assert unknown[name] == pytest.approx(0, abs=1e-4)
        assert outside[name] > 0.01
    known = batch._replace(lesions=lesions.clamp_min(0), labels=torch.zeros(2).long())
    inside, beside = terms(8, known), terms(1, known)
    assert inside["outside"] == pytest.approx(0, abs=1e-4)
    assert inside["false"] == pytest.approx(beside["false"], rel=1e-3)
    assert beside["focal"] == pytest.approx(tool.OUTSIDE * inside["focal"], rel=0.01)
