from __future__ import annotations

import numpy as np
import pytest

from medzsad.inference.brain import brain_region


def ball(spacing: tuple[float, float, float], radius: float, centre: float = 100.0) -> np.ndarray:
    """A ball in a cube of 200 mm."""
    axes = [(np.arange(round(200 / mm)) + 0.5) * mm - centre for mm in spacing]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 < radius**2


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.0, 1.0, 5.0), (3.0, 2.5, 7.0)])
def test_a_brain_with_a_hole_and_a_bite_is_whole_and_a_little_wider(spacing):
    seen = ball(spacing, 65)
    bitten = seen & ~ball(spacing, 8, 75) & ~ball(spacing, 12, 60)
    found = brain_region(bitten, np.ones_like(seen), spacing)
    assert not found.doubt
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * 6.5**3, rel=0.06)
    assert found.mask[seen].mean() > 0.99
    assert not found.mask[~ball(spacing, 65 + 6 + 2 * max(spacing))].any()


def test_only_what_is_shown_belongs_to_it():
    spacing = (2.0, 2.0, 2.0)
    head = ball(spacing, 66)
    assert not brain_region(ball(spacing, 65), head, spacing).mask[~head].any()


def test_what_is_no_brain_is_doubted():
    spacing = (2.0, 2.0, 2.0)
    whole = np.ones((100, 100, 100), bool)
    assert "mL" in brain_region(ball(spacing, 30), whole, spacing).doubt
    assert "mL" in brain_region(ball(spacing, 95), whole, spacing).doubt
    split = ball(spacing, 60)
    split[:, :, 44:56] = False
    assert "pieces" in brain_region(split, whole, spacing).doubt
    nothing = brain_region(np.zeros_like(whole), whole, spacing)
    assert nothing.doubt
    assert not nothing.mask.any()
