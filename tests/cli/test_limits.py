"""Numbers in options that would take all memory or time: refused at once, by the option's limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medzsad.errors import BadInput
from medzsad.evaluation.settings import RunSettings
from medzsad.predicting import predict
from medzsad.zoo.benchmark import measure_backends
from medzsad.zoo.loading import load_detector

HUGE = 10**9


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(tmp_path / "x.png")
    return tmp_path / "x.png"


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (("evaluate", "-d", "folder", "--root", "nowhere", "--batch-size", HUGE), "PIXELS"),
        (("evaluate", "-d", "folder", "--root", "nowhere", "--batch-size", HUGE, "--shard", "1/2"), "PIXELS"),
        (("evaluate", "--suite", "mvtec", "--data", "nowhere", "--batch-size", HUGE), "PIXELS"),
        (("evaluate", "-d", "folder", "--root", "nowhere", "--resamples", HUGE), "RESAMPLES"),
        (("models", "time", "brightness", "--batch", HUGE), "PIXELS"),
        (("models", "time", "brightness", "--batch", 2000), "PIXELS"),
        (("predict", "IMAGE", "-o", "out", "--batch-size", HUGE), "PIXELS"),
        (("predict", "IMAGE", "-o", "out", "--batch-size", HUGE, "--jobs", 0), "PIXELS"),
    ],
)
def test_a_number_that_would_take_all_memory_is_refused(
    medzsad, image, tmp_path, monkeypatch, arguments, variable
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = medzsad(*(image if part == "IMAGE" else part for part in arguments))
    assert code == 2, err
    (line,) = (line for line in err.splitlines() if line.startswith("error:"))
    assert f"MEDZSAD_MAX_{variable}" in line
    assert "limit" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.png"]


def test_the_variable_raises_the_limit(medzsad, image, tmp_path, monkeypatch) -> None:
    options = ("predict", image, "-o", tmp_path / "out", "--overlay", "none", "--batch-size", HUGE, "-q")
    monkeypatch.setenv("MEDZSAD_MAX_PIXELS", "1e18")
    assert medzsad(*options) == (0, "", "")


@pytest.mark.parametrize("size", ["9" * 5000, "-1", "1.5", "many"])
def test_a_size_that_is_no_number_is_refused(medzsad, tmp_path, size) -> None:
    code, _, err = medzsad("evaluate", "-d", "folder", "--root", tmp_path, "--size", size)
    assert code == 2
    assert err.startswith("error: --size (or native) ")
    assert len(err.splitlines()) == 1


def test_times_without_end_are_refused(medzsad) -> None:
    code, _, err = medzsad("models", "time", "brightness", "--seconds", "inf")
    assert (code, "not in the range" in err) == (2, True)


def test_the_python_side_has_the_same_limits(image, tmp_path) -> None:
    voxels = np.zeros((8, 8, 4), np.float32)
    for call in (
        lambda: predict(voxels, "brightness", affine=np.eye(4), batch_size=HUGE),
        lambda: RunSettings(batch_size=HUGE),
        lambda: measure_backends("brightness", batch=HUGE),
        lambda: load_detector("brightness") and predict(image, "brightness", batch_size=HUGE),
    ):
        with pytest.raises(BadInput, match="MEDZSAD_MAX_PIXELS"):
            call()
