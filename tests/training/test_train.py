"""Training on small detectors: it learns, and its steps are what they should be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.errors import BadInput, ModelNotReady
from medzsad.training.recipe import Recipe, read_recipe
from medzsad.training.train import train
from medzsad.zoo.loading import load_detector

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.yaml"
QUICK = ("detector.image_size=56", "data.0.limit=8", "validation.data.0.limit=8", "batch_size=4", "epochs=2")
CLIP = (
    "{embed_dim: 32, vision_cfg: {image_size: 56, layers: 4, width: 128, patch_size: 14}, "
    "text_cfg: {context_length: 77, vocab_size: 49408, width: 64, heads: 1, layers: 4}}"
)
ADACLIP = f"detector={{backbone: {CLIP}, clip_weights: null, image_size: 56, prompt_depth: 3, clusters: 4}}"


def quick(*changes: str) -> Recipe:
    return read_recipe(SMOKE, [*QUICK, *changes])


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "adapter.safetensors").tensors


def same(one: Path, other: Path) -> bool:
    first, second = tensors(one), tensors(other)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick run as it is by default, to compare others with."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    assert train(quick(), folder, device="cpu").steps == 4
    return folder


@pytest.mark.slow
def test_the_smoke_recipe_learns(tmp_path: Path) -> None:
    result = train(read_recipe(SMOKE, ["epochs=10"]), tmp_path / "run", device="cpu")
    found = losses(tmp_path / "run")
    assert result.finished
    assert len(found) == result.steps == 40
    assert sum(found[-8:]) < 0.85 * sum(found[:8])
    assert [v["step"] for v in result.progress.validations] == [16, 32, 40]
    assert result.progress.best == max(v["chosen"] for v in result.progress.validations)


def test_equal_runs_are_equal(plain: Path, tmp_path: Path) -> None:
    for name, change in (("same", "workers=2"), ("other", "seed=5")):
        train(quick(change), tmp_path / name, device="cpu")
    assert same(plain, tmp_path / "same")
    assert (plain / "log.jsonl").read_text() == (tmp_path / "same" / "log.jsonl").read_text()
    assert not same(plain, tmp_path / "other")


def test_accumulated_batches_are_one_batch(plain: Path, tmp_path: Path) -> None:
    parts = train(quick("batch_size=1", "accumulate=4"), tmp_path / "parts", device="cpu")
    assert parts.steps == 4
    torch.testing.assert_close(losses(plain), losses(tmp_path / "parts"), rtol=2e-4, atol=0)
    assert losses(plain)[0] == pytest.approx(losses(tmp_path / "parts")[0], rel=1e-6)


@pytest.mark.parametrize("change", ["gradient_checkpointing=true", "cache_features=true"])
def test_what_saves_memory_or_time_changes_nothing(plain: Path, tmp_path: Path, change: str) -> None:
    train(quick(change), tmp_path / "other", device="cpu")
    torch.testing.assert_close(losses(plain), losses(tmp_path / "other"), rtol=1e-4, atol=0)


def test_bf16_comes_close_to_fp32(plain: Path, tmp_path: Path) -> None:
    train(quick("precision=bf16"), tmp_path / "bf16", device="cpu")
    full, half = losses(plain), losses(tmp_path / "bf16")
    assert half != full
    torch.testing.assert_close(half, full, rtol=0.05, atol=0)


def test_fp16_is_not_for_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(ModelNotReady, match="fp16 is not computed on the CPU"):
        train(quick("precision=fp16"), tmp_path / "run", device="cpu")


@pytest.mark.parametrize("method", ["anomalyclip", "adaclip"])
def test_the_other_methods_train(tmp_path: Path, method: str) -> None:
    detector = [ADACLIP, "augmentation.mosaic=0.5"] if method == "adaclip" else []
    recipe = quick(f"method={method}", *detector, "batch_size=2", "optimiser.name=adamw")
    train(recipe, tmp_path / "run", device="cpu")
    trained = load_detector(tmp_path / "run", device="cpu", precision="fp32")
    assert trained.method == method
    assert trained.seen == ("synthetic",)
    learned = losses(tmp_path / "run")
    assert len(learned) == 8
    assert len(set(learned)) == 8


def test_learning_rates_of_parts_and_their_schedule(tmp_path: Path) -> None:
    recipe = quick(
        "optimiser.group_lr.head_weights=0",
        "optimiser.schedule=cosine",
        "optimiser.warmup_steps=2",
        "epochs=3",
    )
    train(recipe, tmp_path / "run", device="cpu")
    found = tensors(tmp_path / "run")
    assert all(bool((t == 1).all()) for name, t in found.items() if name.startswith("head_weights"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    rates = [line["lr"] / 4e-3 for line in lines if "lr" in line]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[3:] == pytest.approx([0.8536, 0.5, 0.1464], abs=1e-3)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    changes = ("optimiser.clip_norm=1e-9", "optimiser.eps=1", "epochs=1")
    train(quick(*changes), tmp_path / "run", device="cpu")
    found = tensors(tmp_path / "run")
    # With eps 1 Adam's steps are as long as the gradient is.
    assert all(bool((t - 1).abs().max() < 1e-8) for n, t in found.items() if n.startswith("head_weights"))


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the loss of step \d+ is not a number; lower optimiser.lr"):
        train(quick("optimiser.lr=1e30", "epochs=5"), tmp_path / "run", device="cpu")


def test_a_metric_that_no_set_has(tmp_path: Path) -> None:
    recipe = quick()
    one_class = replace(recipe.validation, data=(replace(recipe.validation.data[0], limit=2),))
    with pytest.raises(BadInput, match=r"validation\.metric mad is undefined on synthetic"):
        train(replace(recipe, validation=one_class), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "log.jsonl").exists()  # found out before the first step


def test_the_chosen_figure_finds_the_best_epoch(tmp_path: Path) -> None:
    metric = "pixel_f1_max"
    recipe = quick(f"validation.metric={metric}", "validation.every=1", "epochs=3", "optimiser.lr=0.05")
    train(recipe, tmp_path / "run", device="cpu")
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    figures = {v["step"]: v["validation"]["synthetic"][metric] for v in found["validations"]}
    assert len(figures) == 3
    assert [v["chosen"] for v in found["validations"]] == list(figures.values())
    assert (found["metric"], found["best"]) == (metric, max(figures.values()))
    assert figures[found["best_step"]] == found["best"]
    assert read_checkpoint(tmp_path / "run" / "adapter.safetensors").training["step"] == found["best_step"]


def test_epochs_are_kept(tmp_path: Path) -> None:
    train(quick("keep=2", "epochs=3", "validation.data=[]"), tmp_path / "run", device="cpu")
    kept = sorted((tmp_path / "run" / "epochs").iterdir())
    assert [path.name for path in kept] == ["epoch-0002.safetensors", "epoch-0003.safetensors"]
    last = read_checkpoint(kept[-1])
    assert last.training["step"] == 6
    found = tensors(tmp_path / "run")
    assert all(torch.equal(found[name], last.tensors[name]) for name in found)  # nothing chose another
