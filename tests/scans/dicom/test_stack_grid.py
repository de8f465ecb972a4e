"""Slices onto a regular grid: what is where in the world must stay there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medzsad.errors import BadInput
from medzsad.scans.dicom.stack_grid import StackGrid, fill_grid, stack_grid

SPACING = (0.8, 0.9)  # mm between columns, and between rows
SIZE = (60, 50)  # columns, rows
CENTRE = np.array([4.0, -3.0, 12.0])  # LPS mm
RADIUS = 9.0


def axes_tilted(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    angle = np.radians(degrees)
    return np.array([1.0, 0, 0]), np.array([0.0, np.cos(angle), -np.sin(angle)])


def positions_along(step: np.ndarray, times: np.ndarray, axes: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """First pixels of slices whose middle passes through the sphere's centre on the way along ``step``."""
    half = axes[0] * SPACING[0] * (SIZE[0] - 1) / 2 + axes[1] * SPACING[1] * (SIZE[1] - 1) / 2
    return CENTRE - half + np.outer(times - times.mean(), step)


def sphere_slice(position: np.ndarray, axes: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(rows, columns): a smooth ball of 1000 on -1000."""
    columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    points = position + columns[..., None] * SPACING[0] * axes[0] + rows[..., None] * SPACING[1] * axes[1]
    distance = np.linalg.norm(points - CENTRE, axis=2)
    return (1000 * np.clip(RADIUS - distance, -1, 1)).astype(np.float32)


def world_centre(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centre of mass of the ball, LPS mm."""
    weights = (voxels + 1000).astype(np.float64)
    index = np.array([(weights * axis).sum() for axis in np.indices(voxels.shape)]) / weights.sum()
    return (affine @ [*index, 1])[:3] * (-1, -1, 1)


def volume_mm3(voxels: np.ndarray, affine: np.ndarray) -> float:
    return float((voxels > 0).sum() * abs(np.linalg.det(affine[:3, :3])))


def read(
    step: np.ndarray, times: np.ndarray, axes: tuple[np.ndarray, np.ndarray]
) -> tuple[StackGrid, np.ndarray]:
    """The grid of the slices through the ball, and its voxels."""
    positions = positions_along(step, times, axes)
    grid = stack_grid(positions, axes, SPACING, SIZE)
    return grid, fill_grid(grid, (sphere_slice(position, axes) for position in positions))


def assert_right_angles(affine: np.ndarray) -> None:
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(unit.T @ unit, np.eye(3), atol=1e-9)


def test_straight_stack_is_copied() -> None:
    grid, voxels = read(np.array([0, 0, 1.5]), np.arange(20.0), axes_tilted(0))
    assert not grid.resampled
    assert grid.notes == ()
    assert voxels.shape == (*SIZE, 20)
    np.testing.assert_allclose(np.linalg.norm(grid.affine[:3, :3], axis=0), (*SPACING, 1.5))
    np.testing.assert_allclose(world_centre(voxels, grid.affine), CENTRE, atol=0.02)


def test_straight_oblique_stack_is_copied() -> None:
    axes = axes_tilted(25)
    grid, voxels = read(np.cross(*axes) * 1.5, np.arange(20.0), axes)
    assert not grid.resampled
    np.testing.assert_allclose(world_centre(voxels, grid.affine), CENTRE, atol=0.02)


@pytest.mark.parametrize("degrees", [18.5, -12.0, 30.0])
def test_gantry_tilt(degrees: float) -> None:
    grid, voxels = read(np.array([0, 0, 1.5]), np.arange(24.0), axes_tilted(degrees))
    assert grid.resampled
    assert_right_angles(grid.affine)
    assert grid.details["gantry_tilt_degrees"] == pytest.approx(abs(degrees), abs=0.01)
    assert f"tilted by {abs(degrees):.1f} degrees" in grid.notes[0]
    np.testing.assert_allclose(world_centre(voxels, grid.affine), CENTRE, atol=0.05)
    upright, plain = read(np.array([0, 0, 1.5]), np.arange(24.0), axes_tilted(0))
    assert volume_mm3(voxels, grid.affine) == pytest.approx(volume_mm3(plain, upright.affine), rel=0.03)
    assert voxels.min() == -1000


def test_tilt_loses_nothing() -> None:
    """Slices that keep their depth reappear whole, moved within the larger planes."""
    axes = axes_tilted(20)
    pixel_step = np.array([0, 0, 2 * SPACING[1] / np.sin(np.radians(20))])  # two pixels a slice
    positions = positions_along(pixel_step, np.arange(5.0), axes)
    slices = np.random.default_rng(0).normal(size=(5, SIZE[1], SIZE[0])).astype(np.float32)
    grid = stack_grid(positions, axes, SPACING, SIZE)
    voxels = fill_grid(grid, slices, padding=-7.0)
    assert grid.shape == (SIZE[0], SIZE[1] + 8, 5)
    for k, pixels in enumerate(slices):
        kept = voxels[:, :, k].T
        start = int(np.flatnonzero((kept != -7).any(axis=1))[0])
        np.testing.assert_allclose(kept[start : start + SIZE[1]], pixels, atol=1e-2)
        assert (np.delete(kept, np.s_[start : start + SIZE[1]], axis=0) == -7).all()


def test_missing_slices_are_said_and_interpolated() -> None:
    times = np.delete(np.arange(24.0), [7, 15, 16])
    grid, voxels = read(np.array([0, 0, 1.5]), times, axes_tilted(0))
    assert grid.shape == (*SIZE, 24)
    assert grid.details["missing_slices"] == 3
    assert grid.notes[0].startswith(
        "3 slices are missing (between slices 7 and 8, and 14 and 15 by position)"
    )
    assert grid.affine[2, 2] == pytest.approx(1.5)
    np.testing.assert_allclose((voxels[:, :, 6] + voxels[:, :, 8]) / 2, voxels[:, :, 7], atol=1e-3)
    np.testing.assert_allclose(world_centre(voxels, grid.affine), CENTRE, atol=0.2)


def test_mixed_spacing_takes_the_finer() -> None:
    times = np.concatenate([np.arange(0, 10, 1.0), np.arange(9.4, 24, 2.0)])
    grid, voxels = read(np.array([0, 0, 1.5]), times, axes_tilted(0))
    assert "unevenly spaced (0.6 to 3.0 mm)" in grid.notes[0]
    assert grid.affine[2, 2] == pytest.approx(1.5, rel=0.03)
    np.testing.assert_allclose(world_centre(voxels, grid.affine), CENTRE, atol=0.1)
    acquired = grid.details["grid"]["acquired_depths_mm"]
    assert len(acquired) == len(times)
    assert "up to 3.0 mm apart" in grid.notes[-1]


def test_tilt_with_mixed_spacing() -> None:
    times = np.concatenate([np.arange(0, 12, 1.0), np.arange(12.5, 26, 2.0)])
    grid, voxels = read(np.array([0, 0, 1.2]), times, axes_tilted(18.5))
    assert_right_angles(grid.affine)
    assert len(grid.notes) == 3
    np.testing.assert_allclose(world_centre(voxels, grid.affine), CENTRE, atol=0.1)
    assert np.isfinite(voxels).all()


def test_sideways_jumps_are_no_tilt() -> None:
    positions = positions_along(np.array([0, 0, 1.5]), np.arange(20.0), axes_tilted(0))
    positions[10:, 0] += 5.0
    grid = stack_grid(positions, axes_tilted(0), SPACING, SIZE)
    assert "gantry_tilt_degrees" not in grid.details
    assert "sideways" in grid.notes[0]
    voxels = fill_grid(grid, (sphere_slice(position, axes_tilted(0)) for position in positions))
    np.testing.assert_allclose(world_centre(voxels, grid.affine), CENTRE, atol=0.1)


def test_rounded_positions_are_no_reason_to_resample() -> None:
    times = np.round(np.arange(30) * 0.625, 2) + np.tile([0.0, 0.01], 15)
    grid, _ = read(np.array([0.001, 0, 1.0]), times, axes_tilted(0))
    assert not grid.resampled


def test_single_slice_uses_its_thickness() -> None:
    grid = stack_grid(np.zeros((1, 3)), axes_tilted(0), SPACING, SIZE, thickness=5.0)
    assert grid.shape == (*SIZE, 1)
    assert grid.affine[2, 2] == 5.0
    assert fill_grid(grid, [np.zeros(SIZE[::-1], np.float32)]).shape == (*SIZE, 1)


def test_colour_is_resampled_too() -> None:
    positions = positions_along(np.array([0, 0, 1.5]), np.array([0.0, 1, 3, 4, 5, 6]), axes_tilted(0))
    grid = stack_grid(positions, axes_tilted(0), SPACING, SIZE)
    voxels = fill_grid(grid, (np.full((*SIZE[::-1], 3), 10.0 * i, np.float32) for i in range(6)))
    assert voxels.shape == (*SIZE, 7, 3)
    np.testing.assert_allclose(voxels[0, 0, :, 1], [0, 10, 15, 20, 30, 40, 50])


def test_absurd_gaps_are_refused() -> None:
    depths = np.concatenate([np.arange(10) * 0.01, [5000.0]])
    with pytest.raises(BadInput, match="make no volume"):
        stack_grid(np.outer(depths, [0, 0, 1]), axes_tilted(0), SPACING, SIZE)


@settings(max_examples=30)
@given(
    gaps=st.lists(st.sampled_from([1.0, 1.0, 2.0, 3.5]), min_size=1, max_size=12),
    tilt=st.floats(-30, 30),
)
def test_linear_fields_survive_exactly(gaps: list[float], tilt: float) -> None:
    """Where slices were acquired, a field that is linear in space stays that field, within the tolerances."""
    axes = axes_tilted(tilt)
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    positions = positions_along(np.array([0, 0, 1.0]), times, axes)
    grid = stack_grid(positions, axes, SPACING, SIZE)
    columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))

    def field(points: np.ndarray) -> np.ndarray:
        return points @ np.array([1.0, -2.0, 3.0])

    slices = [
        field(p + columns[..., None] * SPACING[0] * axes[0] + rows[..., None] * SPACING[1] * axes[1])
        for p in positions
    ]
    voxels = fill_grid(grid, (pixels.astype(np.float32) for pixels in slices), padding=np.float32(1e6))
    index = np.indices(voxels.shape).reshape(3, -1)
    world = (grid.affine[:3, :3] @ index).T + grid.affine[:3, 3]
    error = np.abs(voxels.reshape(-1) - field(world * (-1, -1, 1)))
    # Half-covered pixels at a shifted slice's edge keep its outermost value: at most a pixel of error.
    seen = voxels.reshape(-1) < 1e5
    inner = (index[1] > grid.shape[1] - SIZE[1] + 1) & (index[1] < SIZE[1] - 2)
    # The field changes by up to 3.7 a mm; slices may be off by 2.5 % of a gap and a fifth of a pixel.
    assert error[seen & inner].max(initial=0) < 3.7 * (0.025 * max(gaps) + 0.2 * max(SPACING))
