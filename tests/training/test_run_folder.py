"""What a run leaves behind, and that it is a model."""

from __future__ import annotations

import getpass
import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from medzsad.datasets.opening import open_dataset
from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.errors import BadInput, ModelNotReady
from medzsad.evaluation.evaluate import evaluate
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.training.recipe import read_recipe
from medzsad.training.reporting import card_text
from medzsad.training.run_folder import RunFolder
from medzsad.training.train import train
from medzsad.zoo.loading import load_detector

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.yaml"
CHANGES = (
    "detector.image_size=56",
    "data.0.limit=8",
    "validation.data.0.limit=8",
    "batch_size=4",
    "epochs=4",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, trained on a copy of images in MVTec layout and on synthetic ones."""
    folder = tmp_path_factory.mktemp("run")
    train(read_recipe(SMOKE, CHANGES), folder / "images", device="cpu")  # makes the images
    root = folder / "images" / "data" / "synthetic-test"
    recipe = read_recipe(SMOKE, [*CHANGES, f"data.1={{dataset: mvtec, root: {root}, weight: 0.5}}"])
    train(recipe, folder / "mixed", device="cpu")
    return folder / "mixed"


def test_the_files(run: Path) -> None:
    names = {path.name for path in run.iterdir()} - {"tensorboard"}  # an optional package's
    assert names == {
        *("adapter.safetensors", "card.md", "clip.safetensors", "curves.png", "data", "environment.json"),
        *("head_weights.png", "last", "log.jsonl", "metrics.json", "recipe.yaml"),
    }
    for picture in ("curves.png", "head_weights.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) > 100
            assert len(set(image.convert("L").resize((64, 64)).getdata())) > 10
    assert not list(run.rglob("*.partial"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["finished"]
    assert (metrics["step"], metrics["steps"], metrics["metric"]) == (12, 12, "mad")
    assert read_recipe(run / "recipe.yaml").epochs == 4


def test_nothing_names_the_machine(run: Path) -> None:
    for name in ("environment.json", "card.md", "metrics.json", "log.jsonl"):
        text = (run / name).read_text()
        assert platform.node() not in text
        assert f"/{getpass.getuser()}/" not in text
        assert str(run.parent) not in text
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    stored = json.dumps(read_checkpoint(run / "adapter.safetensors").training)
    assert str(run.parent) not in stored  # folders of data sets


def test_of_a_weights_file_its_name_is_told_and_not_its_folder(run: Path, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes((run / "clip.safetensors").read_bytes())
    changes = (*CHANGES, "epochs=1", "validation.data=[]", f"detector.clip_weights={weights}")
    train(read_recipe(SMOKE, changes), tmp_path / "run", device="cpu")
    for name in ("adapter.safetensors", "card.md", "metrics.json", "log.jsonl", "last/state.safetensors"):
        assert str(tmp_path).encode() not in (tmp_path / "run" / name).read_bytes()
    assert "weights: mine.safetensors" in (tmp_path / "run" / "card.md").read_text()
    with pytest.raises(ModelNotReady, match=r"mine\.safetensors"):
        load_detector(tmp_path / "run", device="cpu")
    assert load_detector(tmp_path / "run", device="cpu", clip_weights=weights).seen == ("synthetic",)


@pytest.mark.parametrize("change", ["data.0.root=/nowhere", "detector.patch_layers=[9]"])
def test_a_run_is_not_deleted_for_one_that_cannot_begin(run: Path, tmp_path: Path, change: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises((BadInput, ModelNotReady)):
        train(read_recipe(SMOKE, [*CHANGES, change]), tmp_path / "run", device="cpu", fresh=True)
    after = {path: path.read_bytes() for path in before if path.is_file()}
    assert after == before


def test_random_clip_weights_of_a_start_that_failed_are_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text((run / "recipe.yaml").read_text())
    (tmp_path / "run" / "clip.safetensors").write_bytes((run / "clip.safetensors").read_bytes())
    changes = (*CHANGES, "epochs=1", "validation.data=[]", "detector.backbone.embed_dim=32")
    text = "detector.backbone.text_cfg.layers=2"
    train(read_recipe(SMOKE, [*changes, text, "detector.deep_depth=1"]), tmp_path / "run", device="cpu")
    assert load_detector(tmp_path / "run", device="cpu").name == "run"


def test_the_adapter_knows_what_it_has_seen(run: Path) -> None:
    training = read_checkpoint(run / "adapter.safetensors").training
    assert training["seen"] == ["custom: images given as mvtec", "synthetic"]
    assert training["chosen_on"] == ["synthetic"]
    assert [(one["dataset"], one["images"], one["anomalous"]) for one in training["data"]] == [
        ("synthetic", 8, 4),
        ("custom: images given as mvtec", 8, 4),
    ]
    assert training["data"][1]["licence"] == "unknown; of mvtec: CC BY-NC-SA 4.0"
    card = (run / "card.md").read_text()
    assert "| custom: images given as mvtec (not known to be mvtec) | test | 8 | 4 |" in card
    assert "The terms of custom: images given as mvtec exclude or limit commercial use" in card
    assert "MVTec AD" not in card
    assert "The step was chosen on synthetic" in card


def test_the_folder_is_a_model(run: Path) -> None:
    detector = load_detector(run, device="cpu", precision="fp32")
    assert (detector.name, detector.seen) == ("mixed", ("custom: images given as mvtec", "synthetic"))
    images = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    by_file = load_detector(
        run / "adapter.safetensors", device="cpu", precision="fp32", clip_weights=run / "clip.safetensors"
    )
    assert torch.equal(detector(images).anomaly_map, by_file(images).anomaly_map)
    assert by_file.seen == detector.seen
    with pytest.raises(ModelNotReady, match=r"a folder without adapter\.safetensors"):
        load_detector(run / "data")


def test_evaluating_on_what_it_has_seen_is_not_zero_shot(run: Path) -> None:
    detector = load_detector(run, device="cpu", precision="fp32")
    root = run.parent / "images" / "data" / "synthetic-test"
    for name, zero_shot in (("mvtec", False), ("mpdd", True)):
        samples = replace(open_dataset(name, root), doubt="")  # as if the made images were that set
        outcome = evaluate(samples, [detector], EvaluationSettings(size=56, resamples=0), references=())
        assert outcome.detectors[0].zero_shot is zero_shot
    unknown = evaluate(
        open_dataset("mpdd", root), [detector], EvaluationSettings(size=56, resamples=0), references=()
    )
    assert not unknown.detectors[0].zero_shot  # custom images may be those that it was trained on


def test_validation_finds_what_an_evaluation_finds(run: Path) -> None:
    best = json.loads((run / "metrics.json").read_text())
    found = next(v for v in best["validations"] if v["step"] == best["best_step"])["validation"]["synthetic"]
    detector = load_detector(run, device="cpu", precision="fp32")
    samples = open_dataset("folder", run / "data" / "synthetic-valid")
    settings = EvaluationSettings(size=56, resamples=0)
    figures = evaluate(samples, [detector], settings, references=()).detectors[0].mean
    assert figures["image"]["auroc"].value == pytest.approx(found["image_auroc"], abs=1e-6)
    assert figures["pixel"]["mad"].value == pytest.approx(found["pixel_mad"], abs=1e-3)


def test_the_card_of_volumes_and_of_unknown_licences() -> None:
    facts = {
        "recipe": read_recipe(SMOKE).without_paths(),
        "name": "own",
        "seen": ["brats2013", "btad"],
        "data": [
            {
                **{"dataset": "brats2013", "title": "BraTS", "split": "test", "images": 90, "anomalous": 40},
                **{"volumes": 3, "licence": "CC BY-NC-SA 3.0"},
            },
            {
                **{"dataset": "btad", "title": "BTAD", "split": "test", "images": 7, "anomalous": 2},
                "licence": "unknown",
            },
        ],
        **{"chosen_on": [], "step": 3, "epochs": 1.5, "seed": 1, "medzsad_version": "0"},
    }
    card = card_text(facts, [], 3)
    assert "| brats2013 (BraTS) | test | 90 slices of 3 volumes | 40 | CC BY-NC-SA 3.0 |" in card
    assert (
        "The terms of brats2013 exclude or limit commercial use; btad states no licence that we know of"
        in card
    )
    assert "chosen" not in card


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    recipe = read_recipe(SMOKE)
    for fresh in (False, True):
        with pytest.raises(BadInput, match=r"holds other files \(thesis\.txt\)"):
            RunFolder(tmp_path).prepare(recipe, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_log_is_cut_at_a_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    lines = [{"step": step, "loss": 1.0} for step in (1, 2, 3)]
    folder.log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "l')
    folder.cut_log(2)
    assert folder.read_log() == lines[:2]
