"""``medzsad normals``, and ``predict`` and ``evaluate`` with profiles, as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from normal_images import save, save_volume, texture, with_blob

Medzsad = Callable[..., tuple[int, str, str]]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for seed in (1, 2):
        save(tmp_path / "good" / f"jane_doe_{seed}.png", texture(seed))
    return tmp_path / "good"


@pytest.fixture
def profile(good: Path, tmp_path: Path, medzsad: Medzsad) -> Path:
    path = tmp_path / "texture.normals"
    code, _, error = medzsad("normals", "fit", good, "-o", path, "--size", 96, "-q")
    assert (code, error) == (0, "")
    return path


def test_fit_and_info(good: Path, tmp_path: Path, medzsad: Medzsad) -> None:
    path = tmp_path / "new" / "texture.normals"
    code, out, _ = medzsad("normals", "fit", good, "-o", path, "--size", 96, "--augment", "rotations")
    assert code == 0
    assert "2 normal scans, 2 images (grey)" in out
    code, out, _ = medzsad("normals", "info", path, "--json")
    card = json.loads(out)
    assert code == 0
    assert (card["features"], card["image_size"], card["scans"]) == ("lite0", 96, 2)
    assert (card["modalities"], card["augmentation"]) == (["grey"], "rotations")
    assert len(card["digests"]) == 2
    code, out, _ = medzsad("normals", "info", path)
    assert code == 0
    assert "modalities:     grey" in out
    assert "jane" not in out
    assert b"jane" not in path.read_bytes()


def test_predict_alone_and_with_a_model(profile: Path, tmp_path: Path, medzsad: Medzsad) -> None:
    scan = save(tmp_path / "bad.png", with_blob(texture(9))[0])
    scores = {}
    for number, more in enumerate(((), ("--model", "brightness"))):
        code, _, _ = medzsad(
            "predict", scan, "-o", tmp_path / str(number), "--normals", profile, *more, "--json", "-q",
            "--overlay", "none",
        )  # fmt: skip
        assert code == 0
        report = json.loads((tmp_path / str(number) / "bad.json").read_text())
        scores[report["model"]] = report["score"]
    assert list(scores) == ["texture", "brightness + texture"]
    assert len(set(scores.values())) == 2


def test_results_of_another_profile_are_not_kept(
    profile: Path, good: Path, tmp_path: Path, medzsad: Medzsad
) -> None:
    scan = save(tmp_path / "scans" / "bad.png", with_blob(texture(9))[0])
    options = ("--normals", profile, "--model", "brightness", "-q", "--overlay", "none")

    def score() -> float:
        assert medzsad("predict", scan.parent, "-o", tmp_path / "flat", *options)[0] == 0
        return json.loads((tmp_path / "flat" / "bad.json").read_text())["score"]

    cohort = ("predict", scan.parent, "-o", tmp_path / "cohort", "--jobs", 0, *options)
    first = score()
    assert medzsad(*cohort)[0] == 0
    assert medzsad("normals", "fit", good, "-o", profile, "--size", 128, "-q")[0] == 0
    assert score() != first
    code, _, error = medzsad(*cohort)
    assert code == 2
    assert "holds results of other settings (normals" in error


def test_bad_input_is_one_line_and_leaves_nothing(
    good: Path, profile: Path, tmp_path: Path, medzsad: Medzsad
) -> None:
    (tmp_path / "empty").mkdir()
    text = tmp_path / "notes.txt"
    text.write_text("normal")
    damaged = tmp_path / "damaged.normals"
    damaged.write_bytes(profile.read_bytes()[:5000])
    volume = save_volume(tmp_path / "v.nii.gz", 1)
    out = tmp_path / "x.normals"
    scan = good / "jane_doe_1.png"
    for words, arguments in (
        ("holds no scans", ("normals", "fit", tmp_path / "empty", "-o", out)),
        ("notes.txt", ("normals", "fit", good, text, "-o", out, "-q")),
        ("unknown features", ("normals", "fit", good, "-o", out, "--features", "none")),
        ("multiple of 32", ("normals", "fit", good, "-o", out, "--size", 100)),
        ("--height-weight must be", ("normals", "fit", good, "-o", out, "--height-weight", -1)),
        ("is a folder", ("normals", "fit", good, "-o", good)),
        ("damaged", ("normals", "info", damaged)),
        ("damaged", ("predict", scan, "--normals", damaged, "-o", tmp_path / "o", "-q")),
        (
            "set --any-modality",
            ("predict", volume, "--modality", "mr", "--normals", profile, "-o", tmp_path / "o", "-q"),
        ),
    ):
        code, printed, error = medzsad(*arguments)
        assert code == 2, (arguments, printed, error)
        lines = [line for line in error.splitlines() if words in line]
        assert len(lines) == 1, (arguments, error)
        assert "Traceback" not in error
    assert not out.exists()
    assert not list(tmp_path.glob(".medzsad-*"))
    forced = ("--any-modality", "--modality", "mr", "--overlay", "none", "-q")
    assert medzsad("predict", volume, "--normals", profile, "-o", tmp_path / "o", *forced)[0] == 0


def test_evaluate_with_a_profile(profile: Path, tmp_path: Path, medzsad: Medzsad) -> None:
    root = tmp_path / "set"
    for number in range(4):
        image, mask = with_blob(texture(number + 20)) if number % 2 else (texture(number + 20), None)
        save(root / "images" / f"{number}.png", image)
        save(root / "masks" / f"{number}.png", image * 0 if mask is None else mask * 255.0)
    base = ("evaluate", "-d", "folder", "--root", root, "--size", 64, "--resamples", 0, "-q", "--json")
    base = (*base, "--no-references")
    code, out, error = medzsad(*base, "--normals", profile)
    assert code == 0, error
    (row,) = json.loads(out)["detectors"]
    assert (row["name"], row["zero_shot"]) == ("texture", False)
    assert row["mean"]["pixel"]["auroc"]["value"] > 0.95
    code, out, error = medzsad(
        *base, "--normals", "own", "--shots", "1", "--draws", 1, "--model", "brightness"
    )
    assert code == 0, error
    document = json.loads(out)
    assert [row["name"] for row in document["detectors"]] == ["brightness", "brightness + 1 normal"]
    assert document["samples"] == 3
    for words, more in (
        ("--shots asks for 9", ("--normals", "own", "--shots", "9")),
        ("--shots, --draws", ("--shots", "1")),
        ("leave out --suite", ("--normals", "own", "--suite", "medical10")),
        ("--framing", ("--normals", profile, "--framing", "whole")),
    ):
        code, _, error = medzsad(*base, *more)
        assert code == 2, error
        assert words in error
