"""The one interface of frozen backbones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.features.base import PatchFeatures, build_features, chosen_layers
from medzsad.errors import ModelNotReady


class Edges(PatchFeatures):
    """Differences to the right and the mean, at half the resolution."""

    def __init__(self, image_size: int = 16) -> None:
        super().__init__(
            "edges", image_size=image_size, multiple=8, mean=(0.1, 0.2, 0.3), std=(2.0, 4.0, 8.0)
        )
        self.mix = torch.nn.Conv2d(3, 5, 2, 2)

    def layers(self, images: Tensor) -> list[Tensor]:
        return [self.mix(images), F.avg_pool2d(images, 4)]


def test_images_are_normalised_and_patches_know_their_neighbours(photos: Tensor) -> None:
    features, images = Edges(), photos[..., :16, :16]
    _, mean = features(images)
    expected = F.avg_pool2d((images - features.mean) / features.std, 4)
    assert torch.allclose(mean[:, :, 1, 1], expected[:, :, :3, :3].mean((2, 3)), atol=1e-6)
    # At a corner the mean is of the four that are there.
    assert torch.allclose(mean[:, :, 0, 0], expected[:, :, :2, :2].mean((2, 3)), atol=1e-6)


def test_autocast_changes_nothing(photos: Tensor) -> None:
    features, images = Edges().eval(), photos[..., :16, :16]
    alone = features(images)
    with torch.autocast("cpu", torch.bfloat16):
        under = features(images)
        assert features.mix(images).dtype == torch.bfloat16  # it is at work
    for one, other in zip(alone, under, strict=True):
        assert other.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [0, -8, 12])
def test_an_image_size_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(
        ModelNotReady, match=rf"edges features: image_size {size} must be a positive multiple"
    ):
        Edges(size)


def test_a_size_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ModelNotReady, match="MEDZSAD_MAX_PIXELS"):
        Edges(80_000)


def test_unknown_features_are_refused_with_those_there_are() -> None:
    with pytest.raises(ModelNotReady, match="unknown features 'resnet'; use lite0, mini, dinov2-s14"):
        build_features("resnet")


@pytest.mark.parametrize(
    ("depth", "layers"), [(12, (6, 8, 10, 12)), (24, (12, 16, 20, 24)), (4, (2, 3, 4)), (1, (1,))]
)
def test_layers_are_of_the_second_half_and_end_with_the_last(depth: int, layers: tuple[int, ...]) -> None:
    assert chosen_layers(depth) == layers
