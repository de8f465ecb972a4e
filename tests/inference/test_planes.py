"""A volume along each of its planes."""

from __future__ import annotations

import numpy as np

from medzsad.inference.planes import brain_of, follow_scan, mean_map
from medzsad.inference.slicewise import SliceWiseOutput
from medzsad.scans.prepared import PreparedVolume
from medzsad.scans.readers import read_scan
from medzsad.scans.slices import Plane

SHAPE = (40, 40, 40)


def ball(radius: float, centre: tuple[int, int, int] = (20, 20, 20)) -> np.ndarray:
    return ((np.indices(SHAPE) - np.array(centre)[:, None, None, None]) ** 2).sum(0) <= radius**2


def prepared_ball() -> PreparedVolume:
    """Return a scan of a ball of 15 mm with a small bright one in it."""
    noise = np.random.default_rng(0).standard_normal(SHAPE)
    voxels = np.where(ball(15), 100 + 5 * noise, 0) + 60 * ball(4)
    return PreparedVolume.of(read_scan(voxels.astype(np.float32), affine=np.eye(4)), plane=Plane.AXIAL)


def output_of(
    plane: Plane, anomaly_map: np.ndarray, brain: np.ndarray | None = None, first: int = 5
) -> SliceWiseOutput:
    """Return what slices from ``first`` to 34 gave."""
    scores = [0.5] * (35 - first)
    return SliceWiseOutput(plane, anomaly_map, list(range(first, 35)), scores, scores, brain)


def test_maps_follow_the_scan_where_they_were_predicted() -> None:
    prepared = prepared_ball()
    soft = (0.01 + 0.5 * ball(6, (22, 20, 20))).astype(np.float32)
    output = output_of(Plane.SAGITTAL, soft, first=18)  # x; of the small ball a part was left out
    region = ball(12)
    follow_scan([output], prepared, region, 8.0)
    followed = output.anomaly_map
    seen = region.copy()
    seen[:18] = False
    assert not followed[~(seen & prepared.foreground)].any()
    inside = ball(3) & seen
    assert followed[inside].mean() > followed[seen & ~ball(5)].mean() + 0.2


def test_each_plane_is_followed_by_itself() -> None:
    prepared = prepared_ball()
    maps = [(0.01 + 0.5 * ball(6, (22, 20, 20))).astype(np.float32), np.full(SHAPE, 0.1, np.float32)]
    outputs = [output_of(Plane.AXIAL, maps[0]), output_of(Plane.CORONAL, maps[1])]
    follow_scan(outputs, prepared, None, 8.0)
    alone = output_of(Plane.AXIAL, (0.01 + 0.5 * ball(6, (22, 20, 20))).astype(np.float32))
    follow_scan([alone], prepared, None, 8.0)
    np.testing.assert_array_equal(outputs[0].anomaly_map, alone.anomaly_map)


def test_the_brain_is_where_most_planes_see_one() -> None:
    prepared = prepared_ball()
    masks = [ball(12), ball(12), ball(14)]
    outputs = [
        output_of(plane, np.zeros(SHAPE, np.float32), mask)
        for plane, mask in zip((Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL), masks, strict=True)
    ]
    most = brain_of(outputs, prepared).mask
    np.testing.assert_array_equal(most, brain_of(outputs[:1], prepared).mask)
    assert most.sum() < brain_of(outputs[2:], prepared).mask.sum()


def test_the_mean_of_maps() -> None:
    maps = [np.full(SHAPE, value, np.float32) for value in (0.1, 0.2, 0.6)]
    assert mean_map(maps[:1]) is maps[0]
    np.testing.assert_allclose(mean_map(maps), 0.3, atol=1e-6)
