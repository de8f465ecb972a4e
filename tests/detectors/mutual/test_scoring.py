"""Mutual scoring: the numbers of the authors' code, and what the functions promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medzsad.detectors.mutual import scoring

NUMBERS = Path(__file__).parents[2] / "parity" / "musc.npz"  # by tests/parity/make_musc.py
DEGREES = (1, 3, 5)


@pytest.fixture(scope="module")
def musc() -> dict[str, torch.Tensor]:
    with np.load(NUMBERS, allow_pickle=False) as numbers:
        return {name: torch.from_numpy(numbers[name]) for name in numbers.files}


@pytest.fixture(scope="module")
def layers(musc) -> list[torch.Tensor]:
    """Normalised features (B, C, h, w) of each layer."""
    tokens = [musc["features0"], musc["features1"]]
    side = round(tokens[0].shape[1] ** 0.5)
    grids = [each.transpose(1, 2).unflatten(2, (side, side)) for each in tokens]
    return [scoring.normalise_layer(grid) for grid in grids]


@pytest.mark.parametrize("degree", DEGREES)
def test_neighbourhoods_are_those_of_the_authors(musc, layers, degree):
    for number, layer in enumerate(layers):
        expected = musc[f"patches{degree}"][:, :, number]
        assert torch.allclose(scoring.aggregate(layer, degree), expected, atol=2e-6)


@pytest.mark.parametrize("block_bytes", [1, scoring.BLOCK_BYTES])
def test_scores_are_those_of_the_authors(musc, layers, monkeypatch, block_bytes):
    """In blocks of one image, and all at once."""
    monkeypatch.setattr(scoring, "BLOCK_BYTES", block_bytes)
    count = len(layers[0])
    scans = list(range(count))
    others = scoring.comparable(scans, None)
    found = [
        scoring.mutual_scores(lambda i, layer=layer: layer[i], scans, others, scans, degrees=DEGREES)
        for layer in layers
    ]
    assert torch.allclose(torch.stack(found).mean(0).flatten(1).double(), musc["maps"], atol=2e-5)
    for degree in DEGREES:
        alone = [
            scoring.mutual_scores(lambda i, layer=layer: layer[i], scans, others, scans, degrees=[degree])
            for layer in layers
        ]
        assert torch.allclose(torch.stack(alone).flatten(2).double(), musc[f"scores{degree}"], atol=2e-5)


@pytest.mark.parametrize(("name", "neighbours"), [("rescored", (1, 2, 3)), ("rescored_far", (1, 4, 8))])
def test_image_scores_are_those_of_the_authors(musc, name, neighbours):
    highest = musc["maps"].amax(1)
    scale = highest.max() - highest.min()
    found = (scoring.rescore(highest, musc["images"], neighbours) - highest.min()) / scale
    assert torch.allclose(found.float(), musc[name].float(), atol=1e-5)


def test_half_precision_changes_little(musc, layers):
    scans = list(range(len(layers[0])))
    others = scoring.comparable(scans, None)
    exact, rounded = (
        scoring.mutual_scores(lambda i, layer=layer: layer[i], scans, others, scans)
        for layer in (layers[0], layers[0].half())
    )
    assert (exact - rounded).abs().max() < 1e-3


def test_slices_are_compared_with_those_of_like_height_of_other_scans():
    scans = [0, 0, 0, 1, 1, 1, 1, 1]
    heights = [0.1, 0.5, 0.9, 0.1, 0.3, 0.5, 0.52, 0.9]
    others = scoring.comparable(scans, heights, window=0.05, slices=3)
    assert others[0] == [3]
    assert others[1] == [5, 6]
    assert others[4] == [0]  # none is near: the nearest
    assert scoring.comparable(scans, heights, window=1, slices=1)[1] == [5]


def test_few_scans_have_one_nearest():
    distances = torch.tensor([[3.0], [1.0], [torch.inf]])
    assert scoring.lowest_mean(distances, 0.3).item() == 1.0
    assert scoring.lowest_mean(distances, 1.0).item() == 2.0


def test_values_keep_ranks_and_do_not_saturate():
    centre, limit = torch.tensor(0.2), torch.tensor(0.5)
    scores = torch.linspace(0, 2, 2001)
    values = scoring.calibrated(scores, centre, limit)
    assert (values.diff() > 0).all()
    assert 0 < values.min() < values.max() < 0.97
    at = scoring.calibrated(torch.tensor([0.2, 0.5]), centre, limit)
    assert at.tolist() == pytest.approx([0.05, 0.5], abs=1e-6)


def test_limit_of_images_without_a_difference():
    assert scoring.centre_and_limit(torch.zeros(9), torch.zeros(3)) == (0.0, scoring.LEAST_LIMIT)
