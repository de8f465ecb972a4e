from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medzsad.errors import BadInput
from medzsad.inference.slice_step import AUTO_MM, fill_between, parse_slice_step, thinned


def test_a_step_is_auto_a_distance_or_none():
    assert parse_slice_step(None) is None
    assert parse_slice_step("all") == 0
    assert parse_slice_step("auto") == AUTO_MM
    assert parse_slice_step("2.5") == 2.5
    for wrong in ("every", 0, -1, "nan", "inf", 1e6):
        with pytest.raises(BadInput, match="slice_step"):
            parse_slice_step(wrong)


@given(st.sets(st.integers(0, 60), min_size=1).map(sorted), st.floats(0.3, 7), st.floats(0.1, 20))
def test_no_slice_lies_farther_from_a_predicted_one_than_the_step(indices, spacing, step):
    chosen = thinned(indices, step, spacing)
    assert set(chosen) <= set(indices)
    for index in set(indices) - set(chosen):
        below = max(each for each in chosen if each < index)
        above = min(each for each in chosen if each > index)
        assert (above - below) * spacing <= step * 1.002 + 1e-4
        # Interpolated only inside a run of neighbours: nothing is invented over a gap.
        assert set(range(below, above + 1)) <= set(indices)


def test_thick_slices_are_all_predicted():
    assert thinned(range(10), 3.0, 5.0) == list(range(10))
    assert thinned(range(10), 3.0, 2.0) == list(range(10))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_map_that_changes_evenly_is_filled_exactly(axis):
    ramp = np.linspace(0, 1, 9, dtype=np.float32)
    whole = np.broadcast_to(ramp.reshape([-1 if other == axis else 1 for other in range(3)]), (9, 9, 9))
    volume = np.zeros_like(whole)
    kept = thinned(range(9), 3.0, 1.0)
    for index in kept:
        np.moveaxis(volume, axis, 0)[index] = ramp[index]
    fill_between(volume, axis, kept, range(9))
    np.testing.assert_allclose(volume, whole, atol=1e-6)


def test_masks_take_the_nearer_slice():
    mask = np.zeros((1, 1, 5), bool)
    mask[..., 4] = True
    fill_between(mask, 2, [0, 4], range(5))
    assert mask[0, 0].tolist() == [False, False, False, True, True]
