"""Maps and scores, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from medzsad.detectors.scoring import (
    abnormality,
    gaussian_smooth,
    joint_score,
    patch_probabilities,
    pool_map,
    similarity_logits,
    upsample,
)


@pytest.mark.parametrize("size", [(40, 55), (5, 9), (1, 3)])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_smoothing_equals_scipy_even_where_the_kernel_exceeds_the_map(
    size: tuple[int, int], sigma: float
) -> None:
    maps = np.random.default_rng(0).random((2, *size), dtype=np.float32)
    expected = np.stack([gaussian_filter(m.astype(np.float64), sigma) for m in maps])
    np.testing.assert_allclose(gaussian_smooth(torch.from_numpy(maps), sigma).numpy(), expected, atol=2e-6)


@settings(max_examples=25)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 6))
def test_smoothing_keeps_the_range_and_the_mean(height: int, width: int, sigma: float) -> None:
    maps = torch.rand(1, height, width, generator=torch.Generator().manual_seed(height * 100 + width))
    smoothed = gaussian_smooth(maps, sigma)
    assert smoothed.amin() >= maps.amin() - 1e-6
    assert smoothed.amax() <= maps.amax() + 1e-6
    torch.testing.assert_close(smoothed.mean(), maps.mean(), atol=1e-5, rtol=0)


def test_sigma_zero_leaves_maps_alone() -> None:
    maps = torch.rand(1, 4, 4)
    assert torch.equal(gaussian_smooth(maps, 0), maps)


def test_smoothing_and_similarities_stay_float32_under_autocast() -> None:
    maps, features, text = torch.rand(1, 20, 20), torch.randn(1, 6, 16), torch.randn(2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gaussian_smooth(maps, 2), gaussian_smooth(maps.clone(), 2))
        smoothed, logits = gaussian_smooth(maps, 2), similarity_logits(features, text)
    assert smoothed.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(logits, similarity_logits(features, text))
    torch.testing.assert_close(smoothed, gaussian_smooth(maps, 2))


def test_patch_probabilities_by_hand() -> None:
    text = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    patches = torch.tensor([[[5.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0], [0.0, 7.0], [3.0, 4.0]]])
    probabilities = patch_probabilities(patches, text, (2, 3), temperature=0.5)
    assert probabilities.shape == (1, 2, 2, 3)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 2, 3))
    cosines = F.normalize(patches[0], dim=-1)
    expected = torch.sigmoid((cosines[:, 1] - cosines[:, 0]) / 0.5).reshape(1, 2, 3)
    torch.testing.assert_close(abnormality(probabilities), expected)


def test_upsampling_commutes_with_the_mean_over_layers() -> None:
    maps = torch.rand(3, 5, 5)
    torch.testing.assert_close(
        upsample(maps, (20, 30)).mean(0), upsample(maps.mean(0, keepdim=True), (20, 30))[0]
    )
    assert upsample(torch.rand(2, 2, 5, 5), (9, 9), align_corners=True).shape == (2, 2, 9, 9)


def test_pools() -> None:
    maps = torch.arange(200.0).reshape(2, 10, 10) / 200
    torch.testing.assert_close(pool_map(maps), torch.tensor([0.495, 0.995]))
    torch.testing.assert_close(pool_map(maps, "top", 2), torch.tensor([0.4925, 0.9925]))
    torch.testing.assert_close(pool_map(maps, "top", 100), maps.mean((1, 2)))
    torch.testing.assert_close(pool_map(maps, "top", 0.001), pool_map(maps))
    for pool, percent in (("median", 1), ("top", 0), ("top", 101)):
        with pytest.raises(ValueError, match="pool"):
            pool_map(maps, pool, percent)


def test_joint_score_mixes() -> None:
    image, pooled = torch.tensor([0.2]), torch.tensor([0.8])
    for weight, expected in ((0.0, 0.2), (1.0, 0.8), (0.25, 0.35)):
        torch.testing.assert_close(joint_score(image, pooled, weight), torch.tensor([expected]))
