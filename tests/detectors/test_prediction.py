"""Batches that several networks share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medzsad.detectors.prediction import Prediction, divided


@pytest.mark.parametrize("chosen", [[0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
def test_each_image_goes_through_its_network_alone(chosen: list[int]) -> None:
    batches: list[int] = []

    def network(factor: float) -> object:
        def run(images: Tensor) -> Prediction:
            batches.append(len(images))
            maps = factor * images[:, 0]
            return Prediction(maps, maps.amax((1, 2)), maps.mean((1, 2)))

        return run

    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = divided(images, torch.tensor(chosen), [network(0.5), network(0.25)])
    factors = torch.tensor([0.25 if number else 0.5 for number in chosen])
    assert found.anomaly_map.equal(factors[:, None, None] * images[:, 0])
    assert found.image_score.equal((factors[:, None, None] * images[:, 0]).amax((1, 2)))
    assert sorted(batches) == sorted(count for count in (chosen.count(0), chosen.count(1)) if count)
