"""The picture and the table of head weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.headclip.anomalyclip import AnomalyCLIP
from medzsad.detectors.headclip.head_picture import draw_head_weights, head_weights_table, read_head_weights
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.errors import ModelNotReady

Build = Callable[..., HeadCLIP]


def trained(headclip: HeadCLIP) -> HeadCLIP:
    """Layers 2 to 4, two heads: a head raised on one path, another lowered on the other."""
    with torch.no_grad():
        headclip.head_weights.patch[1, 0] = 1.5
        headclip.head_weights.image[2, 1] = 0.7
    return headclip


def large_checkpoint(paths: str = "patch+image") -> Checkpoint:
    """As large as ViT-L/14's."""
    generator = torch.Generator().manual_seed(0)
    names = paths.split("+")
    tensors = {f"head_weights.{p}": 1 + 0.2 * torch.randn(19, 16, generator=generator) for p in names}
    settings = {
        "head_layers": list(range(6, 25)),
        "vv_start": 6,
        "head_paths": paths,
        "head_parametrisation": "raw",
    }
    return Checkpoint("headclip", tensors, settings)


@pytest.mark.parametrize("parametrisation", ["raw", "softmax", "sigmoid"])
def test_a_checkpoint_tells_the_same_as_its_detector(build_detector: Build, parametrisation: str) -> None:
    detector = trained(
        build_detector("headclip", head_parametrisation=parametrisation, head_layers=(2, 3, 4))
    )
    ours, stored = read_head_weights(detector), read_head_weights(detector.to_checkpoint())
    assert list(ours) == list(stored) == ["patch", "image"]
    for path, layers in ours.items():
        assert list(layers) == [2, 3, 4]
        for layer, scale in detector.head_weights.scales(path).items():
            np.testing.assert_allclose(layers[layer], scale.detach().numpy(), rtol=1e-6)
            np.testing.assert_array_equal(stored[path][layer], layers[layer])


def test_the_table_names_what_was_changed(small_headclip: HeadCLIP) -> None:
    lines = head_weights_table(trained(small_headclip)).splitlines()
    assert len(lines) == 2 * (2 + 3)
    assert lines[0].startswith("V-V path (patches): 3 layers x 2 heads, 1.000 to 1.500, mean 1.083")
    assert lines[3].split() == ["3", "1.000", "1.250", "1.500", "1", "(1.500)", "-"]
    assert lines[9].split() == ["4", "0.700", "0.850", "1.000", "-", "2", "(0.700)"]
    assert max(map(len, head_weights_table(large_checkpoint()).splitlines())) <= 100


def test_the_picture_is_red_where_raised_and_blue_where_lowered(small_headclip: HeadCLIP) -> None:
    plain, changed = draw_head_weights(small_headclip), draw_head_weights(trained(small_headclip))
    assert changed.dtype == np.uint8
    assert changed.shape == plain.shape
    assert changed.shape[2] == 3

    def more(half: int) -> tuple[int, int]:
        """How many more red and blue pixels there are than without training; the colour bar has some."""
        counts = []
        for picture in (changed, plain):
            red, _, blue = np.array_split(picture.astype(int), 2, axis=1)[half].transpose(2, 0, 1)
            counts.append(np.array([(red - blue > 60).sum(), (blue - red > 60).sum()]))
        return tuple((counts[0] - counts[1]).tolist())

    raised, lowered = more(0)
    assert raised > 300
    assert lowered == 0
    raised, lowered = more(1)
    assert abs(raised) < 60
    assert lowered > 300


@pytest.mark.parametrize("paths", ["patch+image", "patch", "image"])
def test_every_choice_of_paths_is_drawn(paths: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as of text that does not fit
        picture = draw_head_weights(large_checkpoint(paths))
    height, width, _ = picture.shape
    assert 400 < height < 1200
    assert width > 700 * len(paths.split("+"))
    assert picture.std() > 10


def test_anomalyclip_has_ones(small_anomalyclip: AnomalyCLIP) -> None:
    for layers in read_head_weights(small_anomalyclip).values():
        assert all((scale == 1).all() for scale in layers.values())
    assert "1.000 to 1.000" in head_weights_table(small_anomalyclip)


def test_other_checkpoints_say_so(small_adaclip: AdaCLIP) -> None:
    with pytest.raises(ModelNotReady, match="'adaclip' has no head weights"):
        draw_head_weights(small_adaclip.to_checkpoint())
    good = large_checkpoint()
    broken: list[dict[str, Any]] = [
        {"settings": {**good.settings, "head_layers": [1, 2]}},
        {"settings": {}},
        {"tensors": {"head_weights.patch": torch.ones(19, 16)}},
    ]
    for changes in broken:
        with pytest.raises(ModelNotReady, match="do not fit"):
            head_weights_table(replace(good, **changes))
