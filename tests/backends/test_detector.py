"""Every method's graph in every runtime against PyTorch, and what else callers expect of a detector."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from graph_cases import fused_adaclip, make
from torch import Tensor

from medzsad.backends.detector import GraphDetector
from medzsad.backends.onnx_export import probe_images
from medzsad.detectors.base import AnomalyDetector
from medzsad.errors import ModelNotReady
from medzsad.evaluation.cache import weights_hash
from medzsad.scans.scan import Modality

pytestmark = pytest.mark.slow  # making graphs takes time; tests/backends/test_store.py makes a small one

BACKENDS = ("openvino", "onnx")
METHODS = ("mini", "headclip", "anomalyclip", "winclip", "brightness")
"""The others are exported, and compared, in tests/backends/test_onnx_export.py."""


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for all tests of this file, in which graphs are made once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MEDZSAD_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def graphs() -> Callable[[str, str], GraphDetector]:
    for package in ("openvino", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    return functools.cache(lambda name, backend: GraphDetector(make(name), backend))


def compare(found: AnomalyDetector, expected: AnomalyDetector, images: Tensor, at: float = 2e-5) -> None:
    for call in ("__call__", "predict_at_own_size"):
        for one, other in zip(getattr(found, call)(images), getattr(expected, call)(images), strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, atol=at, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", METHODS)
def test_the_numbers_are_those_of_pytorch(name: str, backend: str, graphs) -> None:
    detector, graph = make(name), graphs(name, backend)
    side = detector.image_size
    assert detector(probe_images(side, 2)).anomaly_map.std() > 0
    for count in (1, 2, 5):
        compare(graph, detector, probe_images(side, count))
    assert graph(probe_images(side, 0)).anomaly_map.shape == (0, side, side)
    compare(graph, detector, torch.rand(2, 3, 50, 61))  # resized before, and the map afterwards
    if name == "mini":  # whose volumes are in test_mini_on_scans.py
        return
    own, other = graph.for_volume(), detector.for_volume()
    assert (own is graph) == (other is detector)
    compare(own, other, probe_images(other.image_size, 3))
    assert own.for_volume() is own


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_graph_serves_all_classes(backend: str, graphs, one_cache: Path) -> None:
    detector, graph = make("winclip"), graphs("winclip", backend)
    made = sorted((one_cache / "graphs").glob("*.onnx"))
    names = ["metal_nut", "object", "brain"]
    found, expected = graph.for_classes(names), detector.for_classes(names)
    images = probe_images(detector.image_size, 2)
    assert [*found] == names
    for name in names:
        compare(found[name], expected[name], images)
        assert found[name].class_name == found[name].settings["class_name"] == name
    assert len({float(one(images).image_score[0]) for one in found.values()}) == 3
    organ = graph.for_classes(["brain"], organ="brain/mr")["brain"]
    compare(organ, detector.for_classes(["brain"], organ="brain/mr")["brain"], images)
    assert not torch.equal(organ(images).image_score, found["brain"](images).image_score)
    assert sorted((one_cache / "graphs").glob("*.onnx")) == made


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_image_of_a_mixed_batch_takes_its_own_network(backend: str, graphs) -> None:
    detector, graph = make("mini"), graphs("mini", backend)
    images = probe_images(64, 6)
    for part in (images[::2], images[1::2], images, images.flip(0), torch.zeros(2, 3, 64, 64)):
        compare(graph, detector, part)
    together, alone = (
        graph(images).image_score,
        torch.cat([graph(one).image_score for one in images.split(1)]),
    )
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_a_network_of_frozen_features_is_a_graph_and_radiology_never_takes_it(graphs) -> None:
    detector, graph = make("mini-lite0"), graphs("mini-lite0", "onnx")
    images = probe_images(48, 4)
    compare(graph, detector, images)
    known, coloured = graph.for_modality(Modality.CT), images[:1]
    compare(known, detector.for_modality(Modality.CT), coloured)
    assert not torch.equal(known(coloured).image_score, graph(coloured).image_score)
    scan = images[1:2]
    compare(graph.for_modality(Modality.US), detector.for_modality(Modality.US), scan)
    assert graph.for_modality(Modality.GREY) is graph
    assert known.threshold == detector.threshold
    for photographs in (graph.for_modality(Modality.RGB), graph.for_images(coloured)):
        assert photographs.threshold == 0.3
    assert graph.for_modality(Modality.US).threshold == 0.4
    assert graph.for_images(scan).threshold == detector.threshold
    assert known.for_modality(Modality.CT) is known


def test_slices_with_neighbours_have_a_graph_of_their_own(graphs) -> None:
    detector, graph = make("mini-slices"), graphs("mini-slices", "onnx")
    own, other = graph.for_volume(), detector.for_volume()
    assert own.neighbour_mm == other.neighbour_mm == 3.0
    assert own is graph.for_volume()
    compare(own, other, probe_images(80, 3))  # channels that differ are no colours there
    film, expected = graph.for_volume(colour=True), detector.for_volume(colour=True)
    assert film.neighbour_mm is None
    compare(film, expected, probe_images(80, 4))


def test_callers_see_the_detector(graphs) -> None:
    detector, graph = make("headclip"), graphs("headclip", "openvino")
    for attribute in ("name", "method", "threshold", "seen", "image_size", "framing", "uses_organ"):
        assert getattr(graph, attribute) == getattr(detector, attribute)
    assert graph.device == torch.device("cpu")
    more = {key: graph.settings[key] for key in graph.settings.keys() - detector.settings.keys()}
    assert more.pop("backend_version")
    assert more == {"backend": "openvino"}
    assert graph.settings["precision"] == "fp32"
    graph.use_precision("fp32")
    for call in (graph.to_checkpoint, lambda: graph.use_precision("bf16")):
        with pytest.raises(ModelNotReady):
            call()
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        graph(torch.full((1, 3, 42, 42), 2.0))
    mini = graphs("mini", "onnx")
    volume = mini.for_volume()
    volume._volume_rules = replace(volume._volume_rules, least_peak=0.5, relative_volume=0.1, dip=0.9)
    own = mini.for_volume().volume_rules
    mini.threshold, mini.name = 0.7, "renamed"
    assert (mini.for_volume().threshold, mini.for_volume().name) == (0.7, "renamed")
    assert (own.least_peak, own.dip) == (0.5, 0.9)
    assert mini.for_volume().volume_rules == own.for_any_values()


def test_the_state_tells_weights_apart(graphs) -> None:
    """So that predictions kept by an evaluation are never taken for another detector's."""
    hashes = {weights_hash(graphs(name, "openvino")) for name in ("headclip", "anomalyclip", "winclip")}
    assert len(hashes) == 3
    assert weights_hash(GraphDetector(make("headclip"), "onnx")) in hashes


def test_the_weights_do_not_stay_beside_the_graph(graphs) -> None:
    graphs("headclip", "openvino")  # so that it is made
    source = make("headclip")
    gone = weakref.ref(source)
    graph = GraphDetector(source, "openvino")
    del source
    gc.collect()
    assert gone() is None
    assert list(graph.parameters()) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_may_share_it(backend: str, graphs) -> None:
    graph = graphs("headclip", backend)
    batches = [probe_images(42, count) for count in (1, 2, 3, 4)]
    expected = [graph(batch).anomaly_map for batch in batches]
    wrong: list[int] = []

    def run(i: int) -> None:
        for _ in range(10):
            if not torch.equal(graph(batches[i]).anomaly_map, expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_cannot_be_a_graph_points_to_pytorch() -> None:
    with pytest.raises(ModelNotReady, match=r"k-means.*use `backend` torch") as caught:
        GraphDetector(fused_adaclip(), "openvino")
    assert "\n" not in str(caught.value)


def test_openvino_in_bf16_is_close_but_not_float32(graphs) -> None:
    from medzsad.detectors.devices import resolve_precision

    if resolve_precision("auto", torch.device("cpu")) != "bf16":
        pytest.skip("this CPU does not compute bf16")
    graph = GraphDetector(make("anomalyclip"), "openvino", "bf16")
    assert graph.settings["precision"] == "bf16"
    images = probe_images(42, 2)
    compare(graph, make("anomalyclip"), images, at=5e-2)
    exact = graphs("anomalyclip", "openvino")
    assert (graph(images).anomaly_map - exact(images).anomaly_map).abs().max() > 0
