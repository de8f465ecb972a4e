from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from graph_cases import make

from medzsad.backends import store
from medzsad.backends.detector import GraphDetector
from medzsad.backends.onnx_export import probe_images
from medzsad.backends.store import digest_of, graph_key
from medzsad.errors import ModelNotReady, OutputNotWritable

pytestmark = pytest.mark.usefixtures("cache_dir")


@pytest.fixture(autouse=True)
def packages() -> None:
    for package in ("openvino", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the graph is."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDZSAD_CACHE", str(folder))
        GraphDetector(make("asymmetry"), "onnx")(probe_images(32, 1))
    return folder


@pytest.fixture
def there(made: Path, cache_dir: Path) -> None:
    shutil.copytree(made, cache_dir)


@pytest.fixture
def load(caplog: pytest.LogCaptureFixture) -> Callable[..., tuple[GraphDetector, list[str]]]:
    """A graph detector, and what was logged when it was loaded."""

    def call(name: str = "asymmetry", backend: str = "onnx") -> tuple[GraphDetector, list[str]]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "medzsad"):
            graph = GraphDetector(make(name), backend)
            graph(probe_images(graph.image_size, 1))
        return graph, list(caplog.messages)

    return call


def graph_files(folder: Path) -> list[Path]:
    return sorted((folder / "graphs").glob("*.onnx"))


def test_a_graph_is_made_once_for_all_backends_and_said_so(load, cache_dir: Path, monkeypatch) -> None:
    """Another backend only compares it."""
    _, said = load()
    assert len(said) == 1
    assert said[0].startswith("our-asymmetry: making a graph for images of")
    assert str(cache_dir / "graphs") in said[0]
    monkeypatch.setattr(store, "convert", lambda *_: pytest.fail("made again"))
    assert load()[1] == []
    assert load(backend="openvino")[1] == []
    (path,) = graph_files(cache_dir)
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["bytes"] == path.stat().st_size
    assert sorted(runner.split()[0] for runner in facts["compared"]) == ["onnx", "openvino"]
    assert max(facts["compared"].values()) < 1e-5


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("damage", ["cut", "no facts", "gone", "other bytes"])
def test_a_damaged_graph_is_made_anew(load, cache_dir: Path, damage: str) -> None:
    (path,) = graph_files(cache_dir)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "no facts":
        path.with_suffix(".json").write_text("{")
    else:
        broken = {"cut": content[:-50], "other bytes": b"\xff" * len(content)}
        path.write_bytes(broken[damage])
    graph, said = load()
    assert len(said) == 1
    images = probe_images(graph.image_size, 2)
    torch.testing.assert_close(graph(images).anomaly_map, make("asymmetry")(images).anomaly_map)
    assert load()[1] == []


def test_the_key_names_all_that_the_numbers_depend_on(monkeypatch) -> None:
    detector = make("mini")
    first = digest_of(detector)
    assert digest_of(make("mini")) == first
    digests = {first, digest_of(detector, "slices"), digest_of(detector.for_volume())}
    detector.score_mix = 0.25
    digests.add(digest_of(detector))
    next(detector.parameters()).data[0] += 1
    digests.add(digest_of(detector))
    monkeypatch.setattr(store, "__version__", "99")
    digests.add(digest_of(detector))
    assert len(digests) == 6
    key = graph_key(first)
    monkeypatch.setattr(store, "_version", lambda package: "99")
    assert graph_key(first) != key


def test_what_was_rounded_is_not_the_same_detector() -> None:
    rounded = make("clip")
    rounded.use_precision("bf16")
    assert digest_of(rounded) != digest_of(make("clip"))


@pytest.mark.usefixtures("there")
def test_a_graph_whose_numbers_are_wrong_is_refused(load, monkeypatch) -> None:
    right = store.open_graph
    monkeypatch.setattr(
        store, "open_graph", lambda *options: lambda images: [v + 0.01 for v in right(*options)(images)]
    )
    with pytest.raises(ModelNotReady, match=r"are off PyTorch's by up to 0.01.*use `backend` torch"):
        load(backend="openvino")
    monkeypatch.setattr(store, "open_graph", right)
    graph = load(backend="openvino")[0]
    assert graph(probe_images(32, 1)).image_score < 1


def test_a_cache_that_cannot_be_written_is_one_line(load, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputNotWritable, match="MEDZSAD_CACHE") as caught:
        load()
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("there")
def test_a_graph_that_is_there_needs_no_writing(load, monkeypatch) -> None:
    for name in ("locked", "writing"):
        monkeypatch.setattr(store.KeyedStore, name, lambda *_, **__: pytest.fail("written"))
    assert load()[1] == []
