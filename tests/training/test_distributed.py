"""Two processes under torchrun, against one with twice the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.training.recipe import read_recipe
from medzsad.training.train import train

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.yaml"
CHANGES = (
    "detector.image_size=56",
    "data.0.limit=12",
    "validation.data.0.limit=9",
    "augmentation.flip_horizontal=0.5",
    "epochs=2",
)
CLIP = (
    "{embed_dim: 32, vision_cfg: {image_size: 56, layers: 4, width: 128, patch_size: 14}, "
    "text_cfg: {context_length: 77, vocab_size: 49408, width: 64, heads: 1, layers: 4}}"
)
# Its first static text prompt is never used, and has no gradient.
ADACLIP = (
    "method=adaclip",
    f"detector={{backbone: {CLIP}, clip_weights: null, image_size: 56, prompt_depth: 3, clusters: 4}}",
)


def torchrun(folder: Path, *changes: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "medzsad", "train", "-c", str(SMOKE), "-o", str(folder), "--device", "cpu"]
    return subprocess.run(
        [*command, *CHANGES, *changes],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param((), id="headclip"), pytest.param(ADACLIP, id="adaclip")])
def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path, method: tuple[str, ...]) -> None:
    done = torchrun(tmp_path / "two", *method, "batch_size=2", "accumulate=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done: ") == 1  # one process speaks
    recipe = read_recipe(SMOKE, [*CHANGES, *method, "batch_size=4"])
    train(recipe, tmp_path / "one", device="cpu")
    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for name in ("loss", "image_loss", "focal", "dice_abnormal", "gradient"):
        assert two[0][name] == pytest.approx(one[0][name], rel=2e-6)
    for first, second in zip(one, two, strict=True):
        if "loss" in first:
            assert second["loss"] == pytest.approx(first["loss"], rel=1e-3)
        else:  # both share the images, and put their results together
            assert second["chosen"] == pytest.approx(first["chosen"], abs=2e-3)
    tensors = [read_checkpoint(tmp_path / name / "adapter.safetensors").tensors for name in ("one", "two")]
    for name in tensors[0]:
        torch.testing.assert_close(tensors[0][name], tensors[1][name], atol=2e-3, rtol=2e-3)
    environment = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert environment["processes"] == 2


@pytest.mark.slow
def test_what_the_first_process_cannot_prepare_stops_all(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    done = torchrun(tmp_path / "run")
    assert done.returncode != 0
    assert "holds other files (notes.txt)" in done.stderr
    assert "internal error" not in done.stderr
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
