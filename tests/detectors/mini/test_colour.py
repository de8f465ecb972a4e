"""medzsad-mini's network for colours on EfficientNet-Lite0, and its checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from mini_cases import detector_of_images, pictures

from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.colour import ENCODER, ColourNetwork
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.errors import ModelNotReady


@pytest.mark.parametrize("side", [48, 144])
def test_the_map_has_half_the_side_of_the_image(side: int) -> None:
    pixel, image = ColourNetwork()(torch.rand(2, 3, side, side))
    assert pixel.shape == (2, 2, side // 2, side // 2)
    assert image.shape == (2, 2)
    pixel.sum().backward()


def test_a_checkpoint_holds_the_decoder_and_names_the_encoder(tmp_path: Path) -> None:
    detector = detector_of_images()
    made = detector.to_checkpoint()
    assert not any(ENCODER in name for name in made.tensors)
    assert made.settings["colour"] == "lite0"
    assert made.settings["encoder"] == detector.colour_network.encoder.digest
    save_checkpoint(made, tmp_path / "mini.safetensors")
    again = MedzsadMini.from_checkpoint(read_checkpoint(tmp_path / "mini.safetensors"))
    for image in pictures():
        torch.testing.assert_close(again(image).anomaly_map, detector(image).anomaly_map, atol=5e-3, rtol=0)
    for settings, reason in (({"encoder": "0" * 64}, "another EfficientNet"), ({"colour": "vgg"}, "lite0")):
        other = dataclasses.replace(made, settings={**made.settings, **settings})
        with pytest.raises(ModelNotReady, match=reason):
            MedzsadMini.from_checkpoint(other)
    few = {name: tensor for name, tensor in made.tensors.items() if "fuse_8" not in name}
    with pytest.raises(ModelNotReady, match="does not fit"):
        MedzsadMini.from_checkpoint(dataclasses.replace(made, tensors=few))
