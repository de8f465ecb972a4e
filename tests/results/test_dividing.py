"""Candidates that are divided between their peaks."""

from __future__ import annotations

import numpy as np
import pytest

from medzsad.results.dividing import divide

SPACING = np.array([2.0, 2.0, 2.0])


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """A ball of soft values: 1 in its middle, 0.5 at its radius."""
    distance = np.sqrt(sum((grid - at) ** 2 for grid, at in zip(np.indices(shape), centre, strict=True)))
    return np.asarray(1 / (1 + (distance / radius) ** 4))


def parts_of(values: np.ndarray, **options: float) -> np.ndarray:
    settings = {"dip": 0.9, "neck": 0.7, "least_peak": 0.6, "least_mm3": 10.0} | options
    return divide(values, values >= 0.5, SPACING, **settings)


def test_two_balls_with_a_neck_are_two() -> None:
    values = np.maximum(ball((30, 16, 16), (8, 8, 8), 5), ball((30, 16, 16), (18, 8, 8), 5))
    parts = parts_of(values)
    assert parts.max() == 2
    assert np.array_equal(parts > 0, values >= 0.5)  # every voxel belongs to one
    assert parts[8, 8, 8] != parts[18, 8, 8]
    assert np.bincount(parts.ravel())[1] == pytest.approx(np.bincount(parts.ravel())[2], rel=0.1)


def test_peaks_in_one_wide_body_are_one() -> None:
    values = np.where(np.indices((30, 16, 16))[0] < 28, 0.8, 0.0)
    values[8, 8, 8] = values[20, 8, 8] = 1.0
    assert parts_of(values).max() == 1
    assert parts_of(values, neck=10.0).max() == 2  # the neck alone keeps them together


@pytest.mark.parametrize(("options", "count"), [({}, 2), ({"dip": 0.5}, 1), ({"least_peak": 0.95}, 1)])
def test_what_counts_as_a_peak(options: dict[str, float], count: int) -> None:
    values = np.maximum(ball((30, 16, 16), (8, 8, 8), 5), 0.9 * ball((30, 16, 16), (18, 8, 8), 5))
    assert parts_of(values, **options).max() == count


def test_a_part_that_is_too_small_goes_to_what_it_touches() -> None:
    values = ball((30, 16, 16), (8, 8, 8), 5)
    values[14, 8, 8], values[15, 8, 8] = 0.55, 0.9  # 16 mm3 beyond a dip
    assert parts_of(values, neck=10.0, least_mm3=20.0).max() == 1
    assert parts_of(values, neck=10.0).max() == 2


def test_parts_that_touch_in_a_corner() -> None:
    values = np.zeros((12, 12, 12))
    values[2:5, 2:5, 2:5], values[5:8, 5:8, 5:8] = 0.7, 0.7
    values[3, 3, 3], values[6, 6, 6] = 1.0, 1.0
    assert parts_of(values, dip=0.6).max() == 1  # 0.7 between them is no dip
    assert parts_of(values).max() == 2


def test_a_mirrored_map_is_divided_alike() -> None:
    r = np.random.default_rng(0)
    values = np.maximum(ball((30, 16, 16), (8, 8, 8), 5), ball((30, 16, 16), (18, 8, 8), 5))
    values = np.clip(values + 0.02 * r.random(values.shape), 0, 1)
    sizes = np.sort(np.bincount(parts_of(values).ravel())[1:])
    mirrored = np.sort(np.bincount(parts_of(values[::-1, :, ::-1]).ravel())[1:])
    assert np.array_equal(sizes, mirrored)


def test_what_is_large_or_noise_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.maximum(ball((30, 16, 16), (8, 8, 8), 5), ball((30, 16, 16), (18, 8, 8), 5))
    for name, most in (("MOST_VOXELS", 500), ("MOST_PEAKS", 1)):
        with monkeypatch.context() as limits:
            limits.setattr(f"medzsad.results.dividing.{name}", most)
            assert parts_of(values).max() == 1
    assert parts_of(values).max() == 2


@pytest.mark.parametrize(("length", "count"), [(30, 1), (90, 3)])
def test_a_bar_is_divided_at_its_dips_only_if_it_is_long(length: int, count: int) -> None:
    values = np.zeros((length + 4, 14, 14))
    values[2:-2, 2:12, 2:12] = (0.85 + 0.1 * np.cos(np.arange(length) / 2))[:, None, None]
    assert parts_of(values).max() == count
