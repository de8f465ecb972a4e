"""Maps that follow the scan."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medzsad.inference import guided
from medzsad.inference.guided import guide_by_scan

SPACING = (1.0, 1.0, 1.0)


def scan_with_a_ball(shape: tuple[int, int, int] = (40, 44, 36)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return deviations, a ball in them, and a soft map of it that is displaced."""
    r = np.random.default_rng(0)
    grid = np.indices(shape)
    ball = ((grid - np.array([20, 20, 18])[:, None, None, None]) ** 2).sum(0) <= 16
    deviations = (2.5 * ball + 0.3 * r.standard_normal(shape)).astype(np.float32)
    soft = ndimage.gaussian_filter(np.roll(ball, 2, axis=0).astype(np.float32), 3)
    return deviations, ball, (0.01 + 0.8 * soft / soft.max()).astype(np.float32)


def guide(soft: np.ndarray, deviations: np.ndarray, inside: np.ndarray | None = None, **how) -> np.ndarray:
    made = soft.copy()
    inside = np.ones(soft.shape, bool) if inside is None else inside
    guide_by_scan(
        made, lambda part: part, deviations, inside, how.get("spacing", SPACING), how.get("radius_mm", 8.0)
    )
    return made


def dice_of_highest(values: np.ndarray, truth: np.ndarray) -> float:
    highest = values >= np.sort(values, axis=None)[-truth.sum()]
    return 2 * (highest & truth).sum() / (highest.sum() + truth.sum())


def test_a_soft_map_takes_the_border_that_the_scan_has() -> None:
    deviations, ball, soft = scan_with_a_ball()
    assert dice_of_highest(soft, ball) < 0.75
    assert dice_of_highest(guide(soft, deviations), ball) > 0.95
    assert dice_of_highest(guide(soft, -deviations), ball) > 0.95  # darker than what is around


def test_values_stay_those_of_the_map_in_another_order() -> None:
    deviations, _, soft = scan_with_a_ball()
    made = guide(soft, deviations)
    assert made.dtype == np.float32
    np.testing.assert_allclose(np.sort(made, axis=None), np.sort(soft, axis=None), atol=0.02)
    for threshold in (0.05, 0.3):
        assert (made > threshold).sum() == pytest.approx((soft > threshold).sum(), rel=0.02)


def test_a_scan_without_contrast_leaves_the_map_to_itself() -> None:
    _, ball, soft = scan_with_a_ball()
    made = guide(soft, np.zeros_like(soft), radius_mm=1.0)
    np.testing.assert_allclose(made, soft, atol=0.15)
    assert abs(dice_of_highest(made, ball) - dice_of_highest(soft, ball)) < 0.1


def test_what_is_outside_is_0_and_has_no_say() -> None:
    deviations, _, soft = scan_with_a_ball()
    inside = np.zeros(soft.shape, bool)
    inside[4:36, 4:40, 4:32] = True
    made = guide(soft, deviations, inside)
    assert (made[~inside] == 0).all()
    other = deviations.copy()
    other[~inside] = 7
    changed = np.where(inside, soft, 0.9).astype(np.float32)
    np.testing.assert_allclose(guide(changed, other, inside), made, atol=1e-6)
    assert (guide(soft, deviations, np.zeros_like(inside)) == 0).all()


def test_pieces_of_a_volume_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    deviations, _, soft = scan_with_a_ball()
    thin = (0.5, 1.0, 2.0)
    whole = guide(soft, deviations, spacing=thin)
    monkeypatch.setattr(guided, "SLAB", 1)
    np.testing.assert_array_equal(guide(soft, deviations, spacing=thin), whole)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_scan_has_the_mirrored_map(axis: int) -> None:
    deviations, _, soft = scan_with_a_ball()
    made = guide(soft, deviations)
    flipped = guide(np.flip(soft, axis).copy(), np.flip(deviations, axis).copy())
    np.testing.assert_allclose(np.flip(flipped, axis), made, atol=1e-3)


def test_one_slice_and_one_voxel_are_no_special_case() -> None:
    deviations, _, soft = scan_with_a_ball()
    for box in (np.s_[:, :, :1], np.s_[:1, :1, :1]):
        made = guide(soft[box].copy(), deviations[box].copy())
        assert made.shape == soft[box].shape
        assert np.isfinite(made).all()
        assert (made >= 0).all()
        assert (made <= 1).all()


def test_thick_slices_do_not_guide_each_other() -> None:
    deviations, _, soft = scan_with_a_ball()
    other = deviations.copy()
    other[:, :, 20:] += 2
    thick, thin = (0.8, 0.8, 4.0), (0.8, 0.8, 0.8)
    made = [guide(soft, scan, spacing=spacing) for spacing in (thick, thin) for scan in (deviations, other)]
    order = [np.argsort(values[:, :, 15], axis=None) for values in made]
    assert (order[0] == order[1]).mean() > 0.99
    assert (order[2] == order[3]).mean() < 0.9
    coarse = guide(soft, deviations, spacing=(4.0, 4.0, 4.0))  # no slices: alike along all axes
    assert np.abs(coarse - soft).max() > 0.05
