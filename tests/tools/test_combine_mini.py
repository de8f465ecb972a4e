"""Two networks of medzsad-mini put into one detector."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medzsad.detectors.mini import MedzsadMini

PATH = Path(__file__).parents[2] / "tools" / "combine_mini.py"


def test_each_network_serves_its_images_and_sizes_must_agree() -> None:
    spec = importlib.util.spec_from_file_location("combine_mini", PATH)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    torch.manual_seed(0)
    grey, colour = (MedzsadMini(image_size=64, threshold=t) for t in (0.4, 0.6))
    record = {"seed": 7}
    first, second = (
        replace(d.to_checkpoint(), training=r) for d, r in ((grey, record), (colour, {"seed": 11}))
    )
    both = tool.combine(first, second)
    assert both.training == {"seed": 7, "colour": {"seed": 11}}
    detector = MedzsadMini.from_checkpoint(both)
    assert detector.threshold == 0.4
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for picture, one in ((image[:, :1].expand(-1, 3, -1, -1), grey), (image, colour)):
        torch.testing.assert_close(detector(picture).anomaly_map, one(picture).anomaly_map, atol=2e-3, rtol=0)
    # Combining anew replaces the second network.
    again = MedzsadMini.from_checkpoint(tool.combine(both, first))
    torch.testing.assert_close(again(image).anomaly_map, grey(image).anomaly_map, atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match="image_size differs"):
        tool.combine(first, MedzsadMini(image_size=80).to_checkpoint())
