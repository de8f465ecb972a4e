"""A training that was stopped, in whatever way, ends as one that was not."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.errors import BadInput, ModelNotReady
from medzsad.training import train as training
from medzsad.training.building import build_detector, build_optimiser
from medzsad.training.recipe import Recipe, read_recipe
from medzsad.training.state import load_state
from medzsad.training.train import train

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.yaml"
CHANGES = (
    "detector.image_size=56",
    "data.0.limit=20",
    "validation.data.0.limit=8",
    "batch_size=2",
    "epochs=6",
    "augmentation.flip_horizontal=0.5",
    "checkpoint_every=3",
)
STEPS_PER_EPOCH, STEPS = 10, 60


def recipe(*changes: str) -> Recipe:
    return read_recipe(SMOKE, [*CHANGES, *changes])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a break."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(recipe(), folder, device="cpu").finished
    return folder


def start(folder: Path) -> subprocess.Popen:
    """Starts the same training in a process of its own."""
    command = [sys.executable, "-m", "medzsad", "train", "-c", str(SMOKE), "-o", str(folder)]
    threads = str(torch.get_num_threads())  # sums depend on how they are split
    return subprocess.Popen(
        [*command, "--device", "cpu", "-q", *CHANGES],
        env={**os.environ, "OMP_NUM_THREADS": threads},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(folder: Path, step: int) -> None:
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 120
    while not log.is_file() or log.read_text().count('"loss"') < step:
        assert time.monotonic() < deadline, "the training does not get on"
        time.sleep(0.002)


def state(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    with safe_open(folder / "last" / "state.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return json.loads(file.metadata()["medzsad"]), tensors


def assert_equal(one: Path, other: Path) -> None:
    adapters = [read_checkpoint(folder / "adapter.safetensors") for folder in (one, other)]
    states = [state(folder)[1] for folder in (one, other)]
    for first, second in (tuple(a.tensors for a in adapters), tuple(states)):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert adapters[0].training == adapters[1].training
    assert (one / "log.jsonl").read_text() == (other / "log.jsonl").read_text()
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    assert figures[0] | {"seconds": 0} == figures[1] | {"seconds": 0}


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = start(tmp_path / "run")
    wait_for_step(tmp_path / "run", 2 * STEPS_PER_EPOCH + 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = state(tmp_path / "run")[0]["progress"]["step"]
    assert 2 * STEPS_PER_EPOCH <= done < STEPS
    # What a kill in the middle of a line would leave.
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step": 99, "lo')
    with caplog.at_level(logging.INFO, "medzsad"):
        result = train(recipe(), tmp_path / "run", device="cpu")
    assert f"going on after step {done} of {STEPS}" in caplog.messages
    assert result.finished
    assert_equal(tmp_path / "run", whole)


@pytest.mark.slow
def test_an_interrupted_command_says_how_to_go_on(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "run")
    wait_for_step(tmp_path / "run", STEPS_PER_EPOCH + 4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    done = state(tmp_path / "run")[0]["progress"]["step"]
    (line,) = errors.strip().splitlines()
    assert line.startswith(f"stopped after step {done} of {STEPS}; go on with: medzsad train -c ")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["finished"] is False
    train(recipe(), tmp_path / "run", device="cpu")
    assert_equal(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("step", [7, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH - 1])
def test_stopped_at_any_step(whole: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(step, monkeypatch)
    first = train(recipe(), tmp_path / "run", device="cpu")
    assert not first.finished
    assert first.progress.step == step
    monkeypatch.undo()
    train(recipe(), tmp_path / "run", device="cpu")
    assert_equal(tmp_path / "run", whole)


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wish to stop is there from this step on."""

    class Impatient(training.Stepper):
        def __call__(self, engine, batch):
            if engine.state.iteration == step:
                signal.raise_signal(signal.SIGTERM)
            return super().__call__(engine, batch)

    monkeypatch.setattr(training, "Stepper", Impatient)


def test_a_finished_run_stays_as_it_is(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = [path for path in whole.rglob("*") if path.suffix in (".safetensors", ".jsonl")]
    before = {path: path.read_bytes() for path in kept}
    with caplog.at_level(logging.INFO, "medzsad"):
        assert train(recipe(), whole, device="cpu").finished
    assert "finished already" in caplog.messages[-1]
    assert all(path.read_bytes() == content for path, content in before.items())


def test_another_recipe_does_not_go_on(whole: Path) -> None:
    with pytest.raises(BadInput, match=r"another recipe \(different: optimiser\.lr, seed\).*`fresh`"):
        train(recipe("optimiser.lr=1", "seed=3"), whole, device="cpu")


def test_other_clip_weights_do_not_go_on(whole: Path, tmp_path: Path, monkeypatch) -> None:
    tensors = load_file(whole / "clip.safetensors")
    tensors["visual.proj"] = 2 * tensors["visual.proj"]
    save_file(tensors, tmp_path / "other.safetensors")
    stop_after(4, monkeypatch)
    train(recipe(), tmp_path / "run", device="cpu")
    monkeypatch.undo()
    with pytest.raises(ModelNotReady, match="not those that this run was trained with"):
        train(recipe(), tmp_path / "run", device="cpu", clip_weights=str(tmp_path / "other.safetensors"))


def test_another_number_of_processes_does_not_go_on(whole: Path) -> None:
    detector = build_detector(recipe(), torch.device("cpu"))
    optimiser, scaler = build_optimiser(detector, recipe().optimiser), torch.amp.GradScaler(enabled=False)
    path, digest = whole / "last" / "state.safetensors", recipe().digest()
    with pytest.raises(BadInput, match=r"a run of 1 process\(es\), not 2; go on with as many"):
        load_state(path, detector, optimiser, scaler, digest=digest, processes=2)
    assert load_state(path, detector, optimiser, scaler, digest=digest).step == STEPS


def test_a_damaged_state_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(4, monkeypatch)
    train(recipe(), tmp_path / "run", device="cpu")
    monkeypatch.undo()
    path = tmp_path / "run" / "last" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match=r"state\.safetensors: the state is damaged; start over with `fresh`"):
        train(recipe(), tmp_path / "run", device="cpu")
    stop_after(2, monkeypatch)
    assert train(recipe(), tmp_path / "run", device="cpu", fresh=True).progress.step == 2


def test_the_state_holds_nothing_frozen(whole: Path) -> None:
    names = {name.partition(".")[2] for name in state(whole)[1]}
    assert all(name.startswith(("prompts.", "head_weights.")) for name in names if name)
    assert (whole / "last" / "state.safetensors").stat().st_size < 100_000
