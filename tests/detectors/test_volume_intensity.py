"""What a detector that compares slices with their volume is shown."""

from __future__ import annotations

import numpy as np
import torch

from medzsad.detectors.volume_intensity import decode, encode, standardised
from medzsad.scans.intensity import IntensityScaling


def scaling(low: float, high: float, padding: float | None = None) -> IntensityScaling:
    return IntensityScaling((low,) * 3, (high,) * 3, False, padding, "", {})


def test_deviations_come_back_and_air_is_black() -> None:
    deviations = torch.tensor([-5.0, -4.0, 0.0, 2.5, 8.0, 20.0])
    encoded = encode(deviations, torch.ones(6))
    assert encoded.min() >= 0
    assert encoded.max() <= 1
    torch.testing.assert_close(decode(encoded), deviations.clamp(-4, 8))
    assert (encode(deviations, torch.zeros(6)) == 0).all()


def test_values_are_deviations_of_the_foreground_beyond_the_window_too() -> None:
    r = np.random.default_rng(0)
    volume = (100 + 10 * r.standard_normal((20, 20, 20))).astype(np.float32)
    volume[0] = -2000
    volume[5, 5, 5] = 160  # far above the window
    foreground = np.ones(volume.shape, bool)
    foreground[0] = False
    prepare = standardised(scaling(70, 130, -2000), volume, foreground)
    found = prepare(volume)
    assert found.dtype == np.float32
    assert (found[0] == 0).all()
    assert abs(found[5, 5, 5] * 12 - 4 - 6) < 0.2
    inside = found[foreground] * 12 - 4
    assert abs(inside.mean()) < 0.02
    assert abs(inside.std() - 1) < 0.05
    # Contrast and brightness of the whole scan do not matter.
    other = standardised(scaling(3 * 70 + 7, 3 * 130 + 7, -5993), 3 * volume + 7, foreground)(3 * volume + 7)
    np.testing.assert_allclose(other, found, atol=1e-4)


def test_of_several_windows_the_first_counts_and_functions_do_too() -> None:
    volume = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 10, 10)
    foreground = volume > 0.1
    windows = IntensityScaling((0.0, 0.2, 0.4), (1.0, 0.5, 0.6), False, None, "", {})
    one = standardised(windows, volume, foreground)(volume)
    np.testing.assert_array_equal(one, standardised(scaling(0, 1), volume, foreground)(volume))
    function = standardised(lambda v: np.stack([v, v, v]), volume, foreground)(volume)
    np.testing.assert_allclose(one, function, atol=1e-6)


def test_a_volume_of_one_value_stays_finite() -> None:
    volume = np.full((4, 4, 4), 7.0, np.float32)
    assert np.isfinite(standardised(scaling(0, 7), volume, volume > 0)(volume)).all()
