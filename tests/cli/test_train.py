"""``medzsad train`` and ``medzsad models info RUN``."""

from __future__ import annotations

import json
from pathlib import Path

from medzsad.cli.train import _command
from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.training.synthetic_set import make_synthetic_set

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.yaml"
QUICK = ("detector.image_size=56", "data.0.limit=8", "validation.data=[]", "batch_size=4", "epochs=2")


def test_a_run_and_what_is_known_of_it(medzsad, tmp_path, cache_dir) -> None:
    run = tmp_path / "run"
    code, out, err = medzsad("train", "-c", SMOKE, "-o", run, "--device", "cpu", *QUICK)
    assert code == 0, err
    assert out.splitlines()[0] == "training: synthetic (test), 8 images, 4 anomalous"
    assert "epoch 2/2  step 4/4  loss " in out
    assert out.splitlines()[-1].startswith(f"done: {run} ")

    code, out, _ = medzsad("models", "info", run)
    assert code == 0
    assert "  trained on  synthetic\n" in out
    assert "synthetic (test, 8 images): none needed" in out
    assert "layers x 2 heads" in out  # head weights as text
    code, as_json, _ = medzsad("models", "info", run / "adapter.safetensors", "--json")
    facts = json.loads(as_json)
    assert (facts["method"], facts["seen"], facts["training"]["step"]) == ("headclip", ["synthetic"], 4)
    assert len(facts["head_weights"]["patch"]["2"]) == 2

    code, out, err = medzsad("train", "-c", SMOKE, "-o", run, "--device", "cpu", *QUICK, "epochs=3")
    assert code == 2
    assert err.startswith(f"error: {run}: holds a run of another recipe (different: epochs)")
    code, out, err = medzsad(
        "train", "-c", SMOKE, "-o", run, "--device", "cpu", "--fresh", "-q", *QUICK, "epochs=1"
    )
    assert (code, out) == (0, "")
    assert json.loads((run / "metrics.json").read_text())["steps"] == 2


def test_a_dry_run_trains_and_writes_nothing(medzsad, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = medzsad("train", "-c", SMOKE, "--dry-run", "optimiser.lr=1e-4", "data.0.limit=5")
    assert code == 0
    assert "  lr: 0.0001\n" in out
    assert "# training: synthetic (test), 5 images, to be made\n" in out
    assert list(tmp_path.iterdir()) == []


def test_images_of_ones_own(medzsad, tmp_path) -> None:
    medzsad("train", "-c", SMOKE, "-o", tmp_path / "first", "--device", "cpu", "-q", *QUICK, "epochs=1")
    own = tmp_path / "first" / "data" / "synthetic-test"
    arguments = ("train", "-c", SMOKE, "--data", f"synthetic={own}", "data.0.limit=6", "validation.data=[]")
    code, out, err = medzsad(*arguments, "--dry-run")
    assert code == 0, err
    assert "# training: synthetic (test), 6 images, 3 anomalous; the card says: custom: images" in out
    assert f"root: {own}" in out


def test_a_folder_that_is_not_the_set_is_named_so(medzsad, tmp_path) -> None:
    own = make_synthetic_set(tmp_path / "own", 8)
    recipe = ("train", "-c", SMOKE, "data.0.dataset=visa", "--data", f"visa={own}")
    code, out, err = medzsad(*recipe, "-o", tmp_path / "run", "--device", "cpu", *QUICK, "epochs=1")
    assert code == 0, err
    assert "visa (test), 8 images, 4 anomalous; the card says: custom: images given as visa\n" in out
    assert "  not known to be visa: visa has no class grain, weave\n" in out
    facts = read_checkpoint(tmp_path / "run" / "adapter.safetensors").training
    assert facts["seen"] == ["custom: images given as visa"]
    assert facts["data"][0]["dataset"] == "custom: images given as visa"
    assert "VisA" not in (tmp_path / "run" / "card.md").read_text()


def test_bad_input_is_one_line(medzsad, tmp_path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(SMOKE.read_text().replace("  lr: 4e-3", "  lr: fast"))
    line = bad.read_text().splitlines().index("  lr: fast") + 1
    for arguments, message in (
        (("-c", bad), f"error: {bad}:{line}: expected a number, got 'fast'\n"),
        (("-c", tmp_path / "none.yaml"), f"error: {tmp_path / 'none.yaml'}: no such file"),
        (("-c", SMOKE, "epoch=1"), "error: override 'epoch=1': unknown key 'epoch' (did you mean 'epochs'?)"),
        (("-c", SMOKE, "--data", "synthetic"), "error: --data synthetic: expected NAME=DIR"),
        (("-c", SMOKE, "--data", "visa=/x"), "error: the recipe smoke uses no data set 'visa'"),
        (("-c", SMOKE, "data.0.dataset=kvasir", "data.0.root=/nowhere"), "error: /nowhere does not exist"),
    ):
        code, _, err = medzsad("train", "-o", tmp_path / "run", *arguments)
        assert code == 2
        assert err.startswith(message)
        assert err.count("\n") == 1


def test_how_to_go_on() -> None:
    alone = _command(["train", "-c", "my file.yaml", "--fresh", "-q"], {})
    assert alone == "medzsad train -c 'my file.yaml' -q"
    together = _command(["train", "-c", "a.yaml"], {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"})
    assert together == "torchrun --nproc-per-node 2 -m medzsad train -c a.yaml"


def test_published_clip_weights_are_asked_for(medzsad, tmp_path, cache_dir, monkeypatch) -> None:
    from medzsad.detectors.clip import pretrained

    monkeypatch.setattr(pretrained, "_cached", lambda config: None)
    recipe = SMOKE.with_name("headclip_mvtec.yaml")
    arguments = ("data.0.dataset=synthetic", "data.0.limit=4", "detector.image_size=56")
    code, _, err = medzsad("train", "-c", recipe, "-o", tmp_path / "run", "--device", "cpu", *arguments)
    assert code == 2
    assert "run: medzsad models fetch clip-vit-l-14-336-openai" in err
