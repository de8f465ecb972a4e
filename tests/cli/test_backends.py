"""``--backend`` and ``medzsad models time``, on a reference, whose graphs are made in a second or two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    for package in ("openvino", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MEDZSAD_CACHE", str(folder))
        yield folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_predict_says_what_computed(medzsad, image: Path, tmp_path: Path, backend: str) -> None:
    reports = {}
    for chosen in ("torch", backend):
        code, _, err = medzsad(
            "predict", image, "-o", tmp_path / chosen, "-m", "asymmetry", "--device", "cpu",
            "--precision", "fp32", "--backend", chosen, "--overlay", "none",
        )  # fmt: skip
        assert code == 0, err
        reports[chosen] = json.loads((tmp_path / chosen / "image.json").read_text())
    assert abs(reports[backend]["score"] - reports["torch"]["score"]) < 1e-5
    detector = reports[backend]["settings"]["detector"]
    assert (detector["backend"], detector["precision"]) == (backend, "fp32")
    assert detector["backend_version"]


@pytest.mark.slow
def test_quiet_says_nothing_of_graphs(medzsad, image: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "cache"))
    options = ("-m", "asymmetry", "--backend", "onnx", "--overlay", "none")
    assert medzsad("predict", image, "-o", tmp_path / "out", *options, "-q") == (0, "", "")
    (graph,) = (tmp_path / "cache" / "graphs").glob("*.onnx")
    graph.write_bytes(b"")
    code, _, err = medzsad("predict", image, "-o", tmp_path / "out", *options, "--fresh")
    assert code == 0
    assert sum("making a graph" in line for line in err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_evaluate_records_what_computed(medzsad, tmp_path: Path, backend: str) -> None:
    root, random = tmp_path / "set", np.random.default_rng(1)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(4):
        mask = np.zeros((48, 48), np.uint8)
        mask[10:22, 8:24] = 255 * (i % 2)
        Image.fromarray(random.integers(0, 255, (48, 48), dtype=np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    code, out, err = medzsad(
        "evaluate", "-d", "folder", "--root", root, "-m", "asymmetry", "--backend", backend,
        "--no-references", "--resamples", 0, "--json", "-q",
    )  # fmt: skip
    assert code == 0, err
    assert f'"backend": "{backend}"' in out


def test_time_prints_a_table_that_auto_goes_by(medzsad, image: Path, tmp_path: Path) -> None:
    code, out, err = medzsad("models", "time", "asymmetry", "--batch", 1, "--seconds", 0, "-q")
    assert (code, err) == (0, "")
    for words in ("slices of volumes, 224 px", "images, 224 px", "openvino fp32", "onnx fp32", "kept"):
        assert words in out
    choice = out.splitlines()[-1].removeprefix("--backend auto takes ")
    code, _, err = medzsad(
        "predict", image, "-o", tmp_path / "out", "-m", "asymmetry", "--backend", "auto", "--device", "cpu"
    )
    assert code == 0
    (line,) = (line for line in err.splitlines() if line.startswith("backend: "))
    assert line.startswith(f"backend: {choice} (the fastest measured on this machine")


def test_a_device_that_a_backend_has_not_is_one_line(medzsad, image: Path, tmp_path: Path) -> None:
    options = ("--backend", "onnx", "--device", "cuda", "-q")
    code, _, err = medzsad("predict", image, "-o", tmp_path / "out", *options)
    assert code == 2
    assert "computes on the CPU" in err
    assert len(err.splitlines()) == 1
