"""``medzsad evaluate`` as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medzsad.cli.main import run

IMAGES = 12


@pytest.fixture
def polyps(tmp_path: Path) -> Path:
    """Images with masks, some without anything in them."""
    rng = np.random.default_rng(0)
    root = tmp_path / "polyps"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(IMAGES):
        pixels = rng.integers(40, 90, (48, 48, 3)).astype(np.uint8)
        mask = np.zeros((48, 48), np.uint8)
        if number % 3:
            mask[10:22, 8:24] = 255
            pixels[mask > 0] += 100
        Image.fromarray(pixels).save(root / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number:02}.png")
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_tables_and_files(polyps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", "-d", "kvasir", "--root", str(polyps), "-o", str(out), "--save-maps", "-q"]
    assert run([*arguments, "--resamples", "50", "--size", "native"]) == 0
    printed = capsys.readouterr().out
    for name in ("medzsad-mini", "brightness", "darkness", "asymmetry", "published: AnomalyCLIP", "AUPRO"):
        assert name in printed
    assert all(len(line) <= 110 for line in printed.splitlines())
    assert (out / "metrics.json").is_file()
    assert (out / "medzsad-mini" / "cases.png").is_file()
    assert len(list((out / "medzsad-mini" / "maps").iterdir())) == IMAGES


def test_json_several_models_and_a_second_run_from_the_cache(
    polyps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "-d", "kvasir", "--root", str(polyps), "-m", "medzsad-mini", "-m", "darkness"]
    arguments += ["--no-references", "--resamples", "0", "--json"]
    assert run([*arguments, "-q"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert [d["name"] for d in first["detectors"]] == ["medzsad-mini", "darkness"]
    assert run(arguments) == 0
    captured = capsys.readouterr()
    second = json.loads(captured.out)
    assert f"{2 * IMAGES} predictions were taken from an earlier run" in captured.err
    for one, again in zip(first["detectors"], second["detectors"], strict=True):
        assert one["mean"] == again["mean"]
        assert one["classes"] == again["classes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "nonsense"], "nonsense"),
        (["-d", "kvasir", "--root", "/nowhere"], "/nowhere"),
        (["-d", "kvasir", "--size", "big"], "--size (or native) 'big' is not a whole number"),
        (["-d", "kvasir", "--size", "4"], "at least 16"),
        (["-d", "kvasir", "--save-maps"], "--out"),
        (["-d", "kvasir", "--fpr-limit", "0"], "fpr_limit must be above 0"),
        (["-d", "kvasir", "-m", "no-such-model"], "no-such-model"),
        (["-d", "kvasir", "--organ", "brain"], "organ"),
    ],
)
def test_bad_options_get_one_line(
    polyps: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if "--root" not in arguments:
        arguments = [*arguments, "--root", str(polyps)]
    assert run(["evaluate", "-q", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_suite_of_what_is_there(polyps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    polyps.rename(tmp_path / "data" / "Kvasir-SEG")
    arguments = [
        "evaluate",
        "--suite",
        "kvasir,brainmri",
        "--data",
        str(tmp_path / "data"),
        "-m",
        "brightness",
    ]
    arguments += ["-m", "asymmetry", "--no-references", "--resamples", "0", "--limit", "8"]
    assert run(arguments) == 0
    captured = capsys.readouterr()
    assert "brainmri: not found" in captured.err
    assert "kvasir: Kvasir-SEG (images-masks)" in captured.err
    for text in ("kvasir, 8 images", "published: AnomalyCLIP", "MEAN, medical, 1 set", "at most 8 samples"):
        assert text in captured.out
    assert max(map(len, captured.out.splitlines())) <= 100
    assert run([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert "kvasir: done in an earlier run with the same settings" in captured.err
    document = json.loads(captured.out)
    assert [(one["name"], one["status"]) for one in document["sets"]] == [
        ("kvasir", "done"),
        ("brainmri", "missing"),
    ]
    assert document["settings"]["limit"] == 8


def test_a_suite_with_a_set_that_fails(
    polyps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    polyps.rename(tmp_path / "data" / "kvasir")
    (tmp_path / "data" / "headct" / "head_ct").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "data" / "headct" / "head_ct" / "0.png")
    (tmp_path / "data" / "headct" / "labels.csv").write_text("id,hemorrhage\n0,perhaps\n")
    arguments = ["evaluate", "--suite", "medical10", "--data", str(tmp_path / "data"), "-m", "brightness"]
    assert run([*arguments, "--no-references", "--resamples", "0", "--limit", "4", "-q"]) == 2
    captured = capsys.readouterr()
    assert "kvasir, 4 images" in captured.out
    assert "failed: headct" in captured.out
    (line,) = captured.err.splitlines()
    assert line.startswith("error: headct: ")
    assert "labels.csv" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--dataset NAME"),
        (["--suite", "paper18"], "unknown suite"),
        (["--suite", "paper17"], "--data"),
        (["--suite", "paper17", "--data", "/nowhere"], "/nowhere"),
        (["--suite", "paper17", "-d", "kvasir"], "--dataset"),
        (["--suite", "paper17", "--root", "/x"], "--root"),
        (["--suite", "paper17", "--class", "bottle"], "--class"),
        (["--suite", "paper17", "--save-maps"], "--save-maps"),
        (["--suite", "paper17", "--shard", "1/2"], "--shard"),
        (["-d", "kvasir", "--data", "/x"], "--root"),
    ],
)
def test_options_that_do_not_go_with_a_suite(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.delenv("MEDZSAD_DATA", raising=False)
    assert run(["evaluate", "-q", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(
    polyps: Path,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["evaluate", "-d", "kvasir", "--root", str(polyps), "--no-references", "--resamples", "20"]
    killed = subprocess.Popen(
        [sys.executable, "-m", "medzsad", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while len(list(own_cache.rglob("*.npz"))) < 3 and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = len(list(own_cache.rglob("*.npz")))
    assert 3 <= done <= IMAGES
    assert run([*arguments, "--json"]) == 0
    resumed = capsys.readouterr()
    if done < IMAGES:
        assert f"{done} predictions were taken from an earlier run" in resumed.err
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "other"))
    assert run([*arguments, "--json"]) == 0
    whole = capsys.readouterr()
    one, other = (json.loads(printed.out)["detectors"][0] for printed in (resumed, whole))
    assert one["classes"] == other["classes"]
