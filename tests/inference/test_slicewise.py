from __future__ import annotations

import numpy as np
import pytest
import torch

from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.inference.slice_step import thinned
from medzsad.inference.slicewise import (
    SliceWisePredictor,
    default_batch_size,
    smooth_along_stack,
)
from medzsad.scans.slices import Plane


class Brightness(AnomalyDetector):
    """A detector whose map is the image itself: what goes in must come back at the same place."""

    method = "brightness-test"

    def __init__(self, image_size: int = 64, fail_above: int | None = None) -> None:
        super().__init__(image_size=image_size, mean=(0, 0, 0), std=(1, 1, 1))
        self.batches: list[int] = []
        self.fail_above = fail_above

    def detect(self, inputs):
        if self.fail_above and len(inputs) > self.fail_above:
            raise torch.cuda.OutOfMemoryError("out of memory")
        self.batches.append(len(inputs))
        score = inputs.amax((1, 2, 3))
        return Prediction(inputs.mean(1), score, score)

    def to_checkpoint(self):
        raise AssertionError("not used")

    @classmethod
    def from_checkpoint(cls, checkpoint, *, clip_weights=None):
        raise AssertionError("not used")


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """A smooth volume and its foreground, away from the borders."""
    x, y, z = np.meshgrid(np.arange(40), np.arange(50), np.arange(20), indexing="ij")
    volume = np.exp(-((x - 22) ** 2 + (y - 18) ** 2 + (2 * (z - 12)) ** 2) / 60).astype(np.float32)
    inside = (abs(x - 20) < 14) & (abs(y - 22) < 16) & (z > 2) & (z < 17)
    return volume * inside, inside


@pytest.mark.parametrize("plane", [Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL])
def test_maps_come_back_to_their_voxels(blobs, plane):
    volume, inside = blobs
    output = SliceWisePredictor(plane, (1.0, 1.0, 2.0))(volume, Brightness(), inside)
    assert output.anomaly_map.shape == volume.shape
    assert output.anomaly_map.dtype == np.float32
    assert np.abs(output.anomaly_map - volume).max() < 0.08
    assert np.unravel_index(output.anomaly_map.argmax(), volume.shape) == (22, 18, 12)


def test_background_is_neither_computed_nor_anomalous(blobs):
    volume, inside = blobs
    detector = Brightness()
    output = SliceWisePredictor(Plane.AXIAL, (1, 1, 1), batch_size=4)(volume + 0.5, detector, inside)
    assert output.indices == list(range(3, 17))
    assert detector.batches == [4, 4, 4, 2]
    assert len(output.scores) == len(output.probabilities) == 14
    assert (output.anomaly_map[~inside] == 0).all()
    assert (output.anomaly_map[inside] > 0).all()


def test_nothing_in_the_foreground_is_no_slices(blobs):
    output = SliceWisePredictor(Plane.AXIAL, (1, 1, 1))(
        blobs[0], Brightness(), np.zeros(blobs[0].shape, bool)
    )
    assert output.indices == []
    assert output.anomaly_map.max() == 0


def test_batch_size_does_not_change_the_result(blobs):
    one = SliceWisePredictor(Plane.AXIAL, (1, 1, 1), batch_size=1)(blobs[0], Brightness(), blobs[1])
    five = SliceWisePredictor(Plane.AXIAL, (1, 1, 1), batch_size=5)(blobs[0], Brightness(), blobs[1])
    np.testing.assert_allclose(one.anomaly_map, five.anomaly_map, atol=1e-6)
    np.testing.assert_allclose(one.scores, five.scores, atol=1e-6)


def test_a_batch_that_does_not_fit_is_halved(blobs):
    whole = SliceWisePredictor(Plane.AXIAL, (1, 1, 1), batch_size=8)(blobs[0], Brightness(), blobs[1])
    detector = Brightness(fail_above=2)
    halved = SliceWisePredictor(Plane.AXIAL, (1, 1, 1), batch_size=8)(blobs[0], detector, blobs[1])
    assert max(detector.batches) == 2
    np.testing.assert_allclose(whole.anomaly_map, halved.anomaly_map, atol=1e-6)
    assert whole.scores == pytest.approx(halved.scores)


def test_pixels_are_square_in_the_detector():
    """A disc in mm on an anisotropic grid reaches the detector as a disc."""
    seen = []

    class Look(Brightness):
        def detect(self, inputs):
            seen.append(inputs.clone())
            return super().detect(inputs)

    x, y = np.meshgrid(np.arange(60) * 1.0, np.arange(20) * 3.0, indexing="ij")
    disc = ((x - 30) ** 2 + (y - 30) ** 2 < 20**2).astype(np.float32)[:, :, None]
    SliceWisePredictor(Plane.AXIAL, (1.0, 3.0, 5.0))(disc, Look(), np.ones(disc.shape, bool))
    image = seen[0][0, 0] > 0.5
    height, width = (image.any(dim).sum().item() for dim in (1, 0))
    assert abs(height - width) <= 3


def test_prepare_and_progress_are_called(blobs):
    volume, inside = blobs
    totals = []

    def progress(indices, total):
        totals.append(total)
        return indices

    inferer = SliceWisePredictor(
        Plane.AXIAL, (1, 1, 1), prepare=lambda v: np.repeat(1 - v[None], 3, axis=0), progress=progress
    )
    output = inferer(volume, Brightness(), inside)
    assert totals == [14]
    assert output.anomaly_map[22, 18, 12] < 0.1


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="plane"):
        SliceWisePredictor(Plane.ALL, (1, 1, 1))
    with pytest.raises(ValueError, match="batch_size"):
        SliceWisePredictor(Plane.AXIAL, (1, 1, 1), batch_size=0)


def test_default_batch_size_shrinks_with_the_image():
    assert default_batch_size(Brightness(64)) >= default_batch_size(Brightness(224)) > 1
    assert default_batch_size(Brightness(518)) == 1


class Neighbours(Brightness):
    """A detector that sees neighbouring slices, and keeps what it was shown."""

    neighbour_mm = 3.0

    def __init__(self) -> None:
        super().__init__(32)
        self.seen: list[torch.Tensor] = []

    def detect(self, inputs):
        self.seen.append(inputs.clone())
        return super().detect(inputs)


@pytest.mark.parametrize(("thickness", "apart"), [(1.0, 3), (2.0, 2), (5.0, 1)])
def test_neighbours_are_as_far_away_in_mm_whatever_the_thickness(thickness: float, apart: int) -> None:
    """Each slice has one value, its index, by which it is known again."""
    volume = np.broadcast_to(np.arange(9, dtype=np.float32) / 8, (32, 32, 9))
    detector = Neighbours()
    SliceWisePredictor(Plane.AXIAL, (1.0, 1.0, thickness))(volume, detector, np.ones(volume.shape, bool))
    shown = torch.cat(detector.seen)[:, :, 16, 16]
    own = shown[:, 0]
    assert (own.diff() > 0).all()
    for index in range(9):
        below, above = max(0, index - apart), min(8, index + apart)  # at the ends the last slice again
        torch.testing.assert_close(shown[index, 1:], own[[below, above]])


def test_neighbours_come_in_deviations_of_the_volume(blobs) -> None:
    volume, inside = blobs
    detectors = Neighbours(), Neighbours()
    for detector, scan in zip(detectors, (volume, 0.5 * volume + 0.2), strict=True):
        SliceWisePredictor(Plane.CORONAL, (1, 1, 2))(scan, detector, inside)
    one, other = (torch.cat(detector.seen) for detector in detectors)
    torch.testing.assert_close(one, other, atol=2e-3, rtol=0)
    assert one.shape[1:] == (3, 32, 32)
    with pytest.raises(ValueError, match="grey volumes"):
        SliceWisePredictor(Plane.AXIAL, (1, 1, 1))(np.stack([volume] * 3, -1), Neighbours(), inside)


def test_the_map_is_smoothed_along_thin_slices_and_not_along_thick_ones(blobs) -> None:
    volume, inside = blobs
    wanted = {"least_area": 0.2, "resolution_mm": 3.0}
    for thickness, smoothed in ((1.0, True), (2.0, True), (3.0, False), (5.0, False)):
        spacing = (1.0, 1.0, thickness)
        plain = SliceWisePredictor(Plane.AXIAL, spacing)(volume, Brightness(), inside)
        output = SliceWisePredictor(Plane.AXIAL, spacing, **wanted)(volume, Brightness(), inside)
        assert output.scores == plain.scores
        assert (output.anomaly_map[~inside] == 0).all()
        if smoothed:
            assert output.anomaly_map.max() < plain.anomaly_map.max()
        else:
            np.testing.assert_array_equal(output.anomaly_map, plain.anomaly_map)


def test_smoothing_keeps_a_constant_map_also_at_the_ends() -> None:
    anomaly_map = np.zeros((3, 4, 12), np.float32)
    anomaly_map[..., 2:9] = 0.4
    smooth_along_stack(anomaly_map, 2, list(range(2, 9)), 3.0, 1.0)
    np.testing.assert_allclose(anomaly_map[..., 2:9], 0.4, rtol=1e-5)
    assert not anomaly_map[..., :2].any()
    assert not anomaly_map[..., 9:].any()


def test_what_lies_between_predicted_slices_is_filled_by_smoothing() -> None:
    bump = np.exp(-0.5 * ((np.arange(40) - 20) / 4) ** 2).astype(np.float32) * np.ones((2, 2, 1), np.float32)
    every, second = bump.copy(), bump.copy()
    indices = list(range(2, 37))
    smooth_along_stack(every, 2, indices, 3.0, 1.0)
    predicted = thinned(indices, 2.0, 1.0)
    second[..., [index for index in range(40) if index not in predicted]] = 0
    smooth_along_stack(second, 2, predicted, 3.0, 1.0, shown=indices)
    np.testing.assert_allclose(second, every, atol=0.01)
    assert not second[..., :2].any()
    assert not second[..., 37:].any()


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [(2.0, [3, 4, 5, 6, 7, 8, 9, 20]), (1.0000001, [3, 4, 6, 8, 9, 20]), (0.6, [3, 6, 9, 20])],
)
def test_slices_that_lie_close_are_not_all_predicted(spacing: float, expected: list[int]) -> None:
    assert thinned([3, 4, 5, 6, 7, 8, 9, 20], 2.0, spacing) == expected


def test_every_second_slice_gives_nearly_the_same_volume(blobs) -> None:
    volume, foreground = blobs
    every, second = (
        SliceWisePredictor(Plane.AXIAL, (1.0, 1.0, 1.0), resolution_mm=3.0, apart_mm=apart)(
            volume, Brightness(), foreground
        )
        for apart in (0.0, 2.0)
    )
    assert second.indices == every.indices
    assert len(second.scores) == len(second.indices)
    np.testing.assert_allclose(second.anomaly_map, every.anomaly_map, atol=0.1)
    assert np.abs(second.anomaly_map - every.anomaly_map).mean() < 0.01


def test_one_slice_is_left_alone() -> None:
    anomaly_map = np.full((5, 6, 1), 0.3, np.float32)
    smooth_along_stack(anomaly_map, 2, [0], 3.0, 1.0)
    np.testing.assert_allclose(anomaly_map, 0.3, rtol=1e-6)


def test_the_ends_of_a_body_are_left_out(blobs) -> None:
    volume, inside = blobs[0], blobs[1].copy()
    inside[:, :, 3] &= np.arange(40)[:, None] == 20  # a sliver
    output = SliceWisePredictor(Plane.AXIAL, (1, 1, 1), least_area=0.2)(volume, Brightness(), inside)
    assert output.indices == list(range(4, 17))
    assert not output.anomaly_map[:, :, 3].any()


def test_outside_a_region_nothing_is_predicted_or_scored(blobs) -> None:
    volume, inside = blobs
    region = np.zeros_like(inside)
    region[20:30, 14:30, 8:11] = True
    detector = Brightness()
    output = SliceWisePredictor(Plane.AXIAL, (1, 1, 1))(volume, detector, inside, region=region)
    assert sum(detector.batches) == 3
    output = output.within(region)
    assert output.indices == [8, 9, 10]
    assert not output.anomaly_map[~region].any()
    assert output.scores == [float(output.anomaly_map[:, :, index].max()) for index in (8, 9, 10)]


def test_with_a_step_fewer_slices_are_predicted_and_the_map_stays_close(blobs):
    volume, inside = blobs
    detector = Brightness()
    exact = SliceWisePredictor(Plane.AXIAL, (1, 1, 1))(volume, Brightness(), inside)
    output = SliceWisePredictor(Plane.AXIAL, (1, 1, 1), apart_mm=2)(volume, detector, inside)
    assert output.indices == exact.indices
    assert sum(detector.batches) == 8
    assert 0 < np.abs(output.anomaly_map - exact.anomaly_map).max() < 0.2
    for index in (3, 4, 6, 8, 10, 12, 14, 16):
        assert np.array_equal(output.anomaly_map[..., index], exact.anomaly_map[..., index])
    assert not output.anomaly_map[~inside].any()
