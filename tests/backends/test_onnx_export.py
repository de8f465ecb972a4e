"""What graphs are made of, and exported files against PyTorch, on batches that they were not made with."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from graph_cases import CALIBRATION, COMMON, MAKERS, NETWORK, fused_adaclip, make
from torch import Tensor

from medzsad.backends import onnx_export as exporting
from medzsad.backends import runtimes
from medzsad.backends.onnx_export import (
    OUTPUTS,
    TOLERANCE,
    ImageSide,
    OnnxExport,
    WholeDetector,
    export_onnx,
    probe_images,
)
from medzsad.backends.runtimes import INPUT
from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.mini.routing import is_colour
from medzsad.detectors.references import Asymmetry, Brightness
from medzsad.detectors.zero_shot.plain_clip import PlainCLIP
from medzsad.detectors.zero_shot.settings import PlainCLIPSettings
from medzsad.errors import BadInput, ModelNotReady, OutputNotWritable


def state_of(detector: AnomalyDetector) -> dict[str, Any]:
    images = torch.rand(2, 3, 50, 50, generator=torch.Generator().manual_seed(1))
    tensors = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    prediction = dict(detector(images)._asdict())
    return tensors | prediction | {"settings": detector.settings, "attributes": sorted(detector.__dict__)}


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_the_detector_at_its_size_which_stays_as_it_was(name: str) -> None:
    detector = make(name)
    detector.precision = "bf16"  # autocast alone: a graph is float32
    before = state_of(detector)
    parts = {id(module): dict(vars(module)) for module in detector.modules()}
    images = torch.rand(3, 3, *(detector.image_size,) * 2, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        copy = detector.for_graph(detector.image_size)
        inner = ImageSide(copy)(detector.preprocess(images))
        outer = WholeDetector(copy)(images)
    assert parts == {id(module): dict(vars(module)) for module in detector.modules()}
    after = state_of(detector)
    assert before.keys() == after.keys()
    for key, value in before.items():
        same = value.equal(after[key]) if isinstance(value, Tensor) else value == after[key]
        assert same, key
    shared = {parameter.data_ptr() for parameter in detector.parameters()}
    positions = [n for n, p in copy.named_parameters() if p.data_ptr() not in shared]
    assert positions in ([], ["clip.visual.positional_embedding"])
    detector.precision = "fp32"
    for found, expected in ((inner, detector.predict_at_own_size(images)), (outer, detector(images))):
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, atol=2e-6, rtol=0)


def test_what_cannot_be_a_graph_is_told_in_a_line() -> None:
    fused, rounded = fused_adaclip(), make("clip")
    with pytest.raises(BadInput, match="k-means"):
        fused.for_graph(fused.image_size)
    rounded.use_precision("bf16")
    with pytest.raises(BadInput, match="load it with precision 'fp32'"):
        rounded.for_graph(rounded.image_size)
    for name, side, reason in (("clip", 50, "no multiple of the patch size"), ("mini", 50, "multiple of 16")):
        with pytest.raises(BadInput, match=reason):
            make(name).for_graph(side)


def test_each_network_is_a_detector_of_its_own() -> None:
    detector = make("mini")
    images = probe_images(64, 4)
    expected = detector(images)
    assert detector.route(images).tolist() == [1, 0, 1, 0]
    for kind, one in zip((slice(1, None, 2), slice(0, None, 2)), detector.networks(), strict=True):
        assert one.colour_network is None
        for found, other in zip(one(images[kind]), expected, strict=True):
            torch.testing.assert_close(found, other[kind], atol=1e-6, rtol=0)
    assert detector.colour_network is not None
    assert torch.equal(detector(images).anomaly_map, expected.anomaly_map)
    volume = make("mini-slices").for_volume()
    (one,) = volume.networks()
    torch.testing.assert_close(one(images).anomaly_map, volume(images).anomaly_map)
    assert sum(p.numel() for p in one.parameters()) < 0.4 * sum(p.numel() for p in volume.parameters())
    grey = make("mini-grey")
    assert grey.networks() == (grey,)


METHODS = (
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("mini", "mini-lite0", "adaclip", "clip")),
    "asymmetry",
)
"""The others are compared in tests/backends/test_detector.py; making graphs takes time."""


@dataclass(frozen=True)
class Exported:
    """A detector and its file."""

    detector: AnomalyDetector
    done: OnnxExport


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Exports each detector once."""

    @functools.cache
    def export(name: str) -> Exported:
        detector = make(name)
        detector.precision = "bf16"  # autocast alone: exported is float32
        return Exported(detector, export_onnx(detector, tmp_path_factory.mktemp(name) / "m.onnx"))

    return export


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(path: Path, images: Tensor) -> list[Tensor]:
    return [torch.from_numpy(v) for v in session_of(path).run(list(OUTPUTS), {INPUT: images.numpy()})]


def compare(case: Exported, images: Tensor) -> None:
    case.detector.precision = "fp32"
    for expected, found in zip(case.detector(images), run(case.done.path, images), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_graphs_give_the_numbers_of_pytorch(name: str, exported: Callable[[str], Exported]) -> None:
    case = exported(name)
    onnx.checker.check_model(str(case.done.path), full_check=True)
    assert case.done.difference <= TOLERANCE
    side = case.detector.image_size
    assert case.detector(probe_images(side, 2)).anomaly_map.std() > 0
    for count in (1, 2, 5):
        compare(case, probe_images(side, count))


@pytest.mark.slow
def test_each_image_takes_the_network_that_is_for_it(exported: Callable[[str], Exported]) -> None:
    case = exported("mini")
    grey, colour = probe_images(64, 6)[1::2], probe_images(64, 6)[::2]
    assert not is_colour(grey).any()
    assert is_colour(colour).all()
    mixed = torch.stack([*grey, *colour])[[0, 3, 1, 4, 5, 2]]
    for images in (grey, colour, mixed, torch.zeros(2, 3, 64, 64), torch.ones(1, 3, 64, 64)):
        compare(case, images)
    other = MedzsadMini(image_size=64, network=NETWORK, calibration=CALIBRATION)
    other.network.load_state_dict(case.detector.network.state_dict())
    assert (other(colour).image_score - case.detector(colour).image_score).abs().max() > 1e-3
    # One network is run for a batch of one kind: each is the body of an If.
    assert [node.op_type for node in onnx.load(case.done.path).graph.node].count("If") == 2


@pytest.mark.slow
def test_the_file_says_what_it_is_and_not_where_it_was_made(exported: Callable[[str], Exported]) -> None:
    case = exported("mini")
    path = case.done.path
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert (facts["model"], facts["method"], facts["threshold"]) == ("our-mini", "mini", "0.5")
    assert json.loads(facts["image_size"]) == 64
    assert json.loads(facts["inputs"]) == {"images": ["batch", 3, 64, 64]}
    assert json.loads(facts["outputs"])["anomaly_map"] == ["batch", 64, 64]
    assert json.loads(facts["seen"]) == ["visa"]
    assert json.loads(facts["settings"])["precision"] == "fp32"
    source = str(Path(exporting.__file__).parents[1]).encode()
    assert source not in path.read_bytes()
    assert [value.name for value in session_of(path).get_inputs()] == [INPUT]
    assert [value.name for value in session_of(path).get_outputs()] == list(OUTPUTS)


@pytest.mark.slow
def test_another_size_is_what_the_detector_does_at_that_size(tmp_path: Path) -> None:
    done = export_onnx(make("clip"), tmp_path / "m.onnx", size=70, opset=20)
    assert (done.image_size, done.opset) == (70, 20)
    assert {entry.domain: entry.version for entry in onnx.load(done.path).opset_import}[""] == 20
    images = probe_images(70, 2)
    maps = run(done.path, images)[0]
    assert maps.shape == (2, 70, 70)
    bigger = PlainCLIP.build(PlainCLIPSettings(**{**COMMON, "image_size": 70}, dense="vv"))
    torch.testing.assert_close(maps, bigger(images).anomaly_map, atol=2e-5, rtol=0)


def test_a_graph_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "TOLERANCE", 0.0)
    with pytest.raises(BadInput, match=r"differ from PyTorch's by up to .*e-"):
        export_onnx(Asymmetry(), tmp_path / "m.onnx", size=32)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="k-means"):
        export_onnx(fused_adaclip(), tmp_path / "m.onnx")
    rounded = make("clip")
    rounded.use_precision("bf16")
    with pytest.raises(BadInput, match="load it with precision 'fp32'"):
        export_onnx(rounded, tmp_path / "m.onnx")
    with pytest.raises(BadInput, match="opset 11"):
        export_onnx(make("brightness"), tmp_path / "m.onnx", opset=11)
    with pytest.raises(BadInput, match="no multiple of the patch size"):
        export_onnx(make("clip"), tmp_path / "m.onnx", size=50)
    with pytest.raises(BadInput, match="no multiple of 16"):
        export_onnx(make("mini"), tmp_path / "m.onnx", size=50)
    with pytest.raises(BadInput, match="a folder"):
        export_onnx(make("brightness"), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritable, match="cannot write"):
        export_onnx(make("brightness"), tmp_path / "file" / "m.onnx")
    monkeypatch.setattr(exporting, "LARGEST", 1)
    with pytest.raises(BadInput, match="one ONNX file"):
        export_onnx(Asymmetry(), tmp_path / "m.onnx", size=32)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ModelNotReady, match=r"medzsad\[onnx\].*missing: onnxscript"):
        export_onnx(make("brightness"), tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_operations_without_a_counterpart_are_told_in_a_line(tmp_path: Path) -> None:
    class Odd(Brightness):
        def detect(self, inputs: Tensor) -> Any:
            return super().detect(inputs if inputs.sum() > 0 else 1 - inputs)

    with pytest.raises(BadInput, match="cannot be exported to ONNX") as caught:
        export_onnx(Odd().eval(), tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
