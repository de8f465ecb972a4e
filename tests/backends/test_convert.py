"""What graphs are made of: copies of detectors, whose numbers are the detectors'."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph_cases import MAKERS, fused_adaclip, make
from torch import Tensor

from medzsad.backends.convert import ImageSide, WholeDetector, probe_images
from medzsad.detectors.base import AnomalyDetector
from medzsad.errors import BadInput


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
