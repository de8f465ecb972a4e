"""A first look at a small size, and a second one where it scores highest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from medzsad.batch.predictor import PredictSettings
from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.headclip.anomalyclip import AnomalyCLIP
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.detectors.prediction import Prediction
from medzsad.detectors.zero_shot.settings import WinCLIPSettings
from medzsad.detectors.zero_shot.winclip import WinCLIP
from medzsad.errors import BadInput
from medzsad.inference.first_pass import STEEPEST, Moments, merged_scores, parse_first_pass, worth_refining
from medzsad.inference.slicewise import SliceWisePredictor
from medzsad.predicting import predict
from medzsad.scans.readers import read_scan
from medzsad.scans.slices import Plane
from medzsad.zoo.loading import load_detector

CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 56, "layers": 4, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 4},
}


class Brightness(AnomalyDetector):
    """Marks what is bright, but at small sizes on another scale: half, and a tenth more."""

    method = "brightness of tests"

    def __init__(self, seen: list[int], side: int = 32) -> None:
        super().__init__(image_size=side, mean=(0, 0, 0), std=(1, 1, 1), threshold=0.5)
        self.seen = seen

    def at_size(self, side: int) -> Brightness:
        return self._at_size(side, 8)

    def to_checkpoint(self) -> Checkpoint:
        raise NotImplementedError

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, clip_weights: str | None = None) -> Brightness:
        raise NotImplementedError

    def detect(self, inputs: Tensor) -> Prediction:
        self.seen += [self.image_size] * len(inputs)
        maps = inputs.mean(1)
        if self.image_size < 32:
            maps = 0.5 * maps + 0.1
        highest = maps.amax((1, 2))
        return Prediction(maps, highest, highest)


def volume() -> np.ndarray:
    """Twelve slices of 32 x 32, brighter and brighter up to the ninth; each has a gradient."""
    heights = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 5.5, 4, 2]) / 10
    rows = np.linspace(0.5, 1, 32)[:, None, None]
    return (rows * np.ones((32, 32, 1)) * heights).astype(np.float32)


def test_a_third_is_predicted_again_and_the_rest_brought_to_its_scale() -> None:
    seen: list[int] = []
    detector = Brightness(seen)
    whole = SliceWisePredictor(Plane.AXIAL, (1, 1, 1))(volume(), detector)
    seen.clear()
    twice = SliceWisePredictor(Plane.AXIAL, (1, 1, 1), first_pass=16)(volume(), detector)
    assert seen == [16] * 12 + [32] * 4
    np.testing.assert_array_equal(twice.anomaly_map[..., 5:9], whole.anomaly_map[..., 5:9])
    # The other slices had 0.5 x + 0.1; the line takes that back, but for what a resize does to a gradient.
    np.testing.assert_allclose(twice.anomaly_map, whole.anomaly_map, atol=0.03)
    assert twice.scores[5:9] == whole.scores[5:9]
    assert twice.indices == whole.indices


def test_what_is_outside_the_foreground_stays_nothing() -> None:
    voxels = volume()
    foreground = np.ones(voxels.shape, dtype=bool)
    foreground[:4], foreground[..., :2] = False, False
    output = SliceWisePredictor(Plane.AXIAL, (1, 1, 1), first_pass=16)(voxels, Brightness([]), foreground)
    assert not output.anomaly_map[~foreground].any()
    assert output.indices == list(range(2, 12))


def test_moments_find_the_line() -> None:
    random = np.random.default_rng(0)
    small = random.random((5, 100), dtype=np.float32)
    moments = Moments()
    for part in small:
        moments.add(part, 2 * part + np.float32(0.25))
    assert moments.line() == pytest.approx((2, 0.25), abs=1e-4)
    assert Moments().line() == (1.0, 0.0)
    flat = Moments()
    flat.add(np.full(9, 0.25, np.float32), np.full(9, 0.5, np.float32))
    assert flat.line() == pytest.approx((1, 0.25))


def test_choice_and_scores() -> None:
    assert worth_refining([3], [0.0]) == [3]
    assert worth_refining(range(10), [0.5] * 10) == [0, 1, 2, 3]
    assert merged_scores([1, 2, 3], [0.9, 0.5, 0.0], [2], [0.7]) == [1.0, 0.7, 0.2]


def test_sides_that_are_none() -> None:
    assert parse_first_pass(None) == 0
    assert parse_first_pass(224) == 224
    for wrong in (0, -1, 1, 10**6, True, "224", 2.5):
        with pytest.raises(BadInput, match="first_pass"):
            parse_first_pass(wrong)  # type: ignore[arg-type]


def test_a_line_is_no_steeper_than_can_be_trusted() -> None:
    moments = Moments()
    moments.add(np.linspace(0.5, 0.51, 50, dtype=np.float32), np.linspace(0, 1, 50, dtype=np.float32))
    slope, offset = moments.line()
    assert slope == STEEPEST
    assert slope * 0.505 + offset == pytest.approx(0.5, abs=1e-4)


def test_progress_counts_both_passes() -> None:
    totals, shown = [], []

    def progress(items, total):
        totals.append(total)
        for item in items:
            shown.append(item)
            yield item

    SliceWisePredictor(Plane.AXIAL, (1, 1, 1), first_pass=16, progress=progress)(volume(), Brightness([]))
    assert totals == [16]
    assert shown == [*range(12), 5, 6, 7, 8]


def test_a_clip_looks_twice() -> None:
    torch.manual_seed(0)
    settings = HeadCLIPSettings(backbone=CLIP, clip_weights=None, image_size=112, deep_depth=3)
    detector = AnomalyCLIP.build(settings, with_text_tower=False).requires_grad_(False).eval()
    scan = read_scan(np.random.default_rng(1).random((40, 40, 9)).astype(np.float32), affine=np.eye(4))
    whole, twice = predict(scan, detector), predict(scan, detector, first_pass=56)
    same = [
        np.array_equal(whole.anomaly_map[..., index], twice.anomaly_map[..., index]) for index in range(9)
    ]
    assert same.count(True) == 3
    assert twice.settings["first_pass"] == 56
    assert whole.settings["volume_rules"] == twice.settings["volume_rules"]
    note = "first pass at 56 pixels: 3 of 9 slices were predicted again at 112, the others are as they were"
    assert f"{note} seen small" in twice.scan.notes
    # All slices at the smaller size are what that detector alone gives.
    small = predict(scan, detector.at_size(56))
    assert small.anomaly_map.shape == whole.anomaly_map.shape
    assert not np.array_equal(small.anomaly_map, whole.anomaly_map)


def test_sizes_that_a_detector_does_not_take() -> None:
    settings = HeadCLIPSettings(backbone=CLIP, clip_weights=None, image_size=112, deep_depth=3)
    detector = AnomalyCLIP.build(settings, with_text_tower=False).eval()
    scan = read_scan(np.random.default_rng(1).random((20, 20, 3)).astype(np.float32), affine=np.eye(4))
    for side in (60, 112, 126):
        with pytest.raises(BadInput, match="multiple of 14 pixels below 112"):
            predict(scan, detector, first_pass=side)
    windows = WinCLIPSettings(backbone=CLIP, clip_weights=None, image_size=56, scales=(3,))
    with pytest.raises(BadInput, match="scales must be different integers from 1 to 2"):
        predict(scan, WinCLIP.build(windows), first_pass=28)
    with pytest.raises(BadInput, match=r"works at \d+ pixels alone"):
        predict(scan, load_detector("brightness"), first_pass=64)


@pytest.mark.parametrize(("name", "value"), [("backend", "onnx"), ("normals", "x.normals")])
def test_what_works_at_one_size_is_refused_before_anything_is_read(name: str, value: str) -> None:
    with pytest.raises(BadInput, match=f"`first_pass` does not go with `{name}`"):
        PredictSettings(first_pass=96, **{name: value}).formats()


def test_mini_looks_twice_and_keeps_its_brain() -> None:
    detector = load_detector("medzsad-mini")
    voxels = np.random.default_rng(1).random((48, 48, 8)).astype(np.float32)
    voxels[:4] = voxels[-4:] = 0
    scan = read_scan(voxels, affine=np.diag([2.0, 2, 5, 1]), modality="mr")
    whole, twice = predict(scan, detector, roi="whole"), predict(scan, detector, roi="whole", first_pass=96)
    assert whole.brain is not None
    assert twice.brain is not None
    assert twice.brain.shape == whole.brain.shape
    assert any("so is the brain in the others" in note for note in twice.scan.notes)
