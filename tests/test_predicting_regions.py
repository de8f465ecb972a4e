"""Regions of interest and rules for volumes, through ``predict``; the detector marks what is bright."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

import medzsad
from medzsad.detectors.base import AnomalyDetector, Prediction, SlicePrediction
from medzsad.detectors.normal_scores import NormalScores, ScoreContext
from medzsad.detectors.volume_rules import MEASURED_RULES, NO_RULES
from medzsad.errors import BadInput
from medzsad.results.prediction import prediction_from, result_meta
from medzsad.scans.scan import Modality, Scan

MM = 4.0
AFFINE = np.diag([MM, MM, MM, 1.0])


class Bright(AnomalyDetector):
    """Its map is what is brighter than 0.5; brain is all from 0.2 on, if it marks one."""

    method = "bright-test"

    def __init__(self, *, brain: bool = True) -> None:
        super().__init__(image_size=64, mean=(0, 0, 0), std=(1, 1, 1))
        self._brain = brain

    @property
    def marks_brain(self) -> bool:
        return self._brain

    def detect(self, inputs):
        grey = inputs[:, 0]
        maps = grey * (grey > 0.5)
        score = maps.amax((1, 2))
        if not self._brain:
            return Prediction(maps, score, score)
        return SlicePrediction(maps, score, score, ((grey > 0.2) * 1.0))

    def to_checkpoint(self):
        raise AssertionError("not used")

    @classmethod
    def from_checkpoint(cls, checkpoint, *, clip_weights=None):
        raise AssertionError("not used")


def head(radius: float = 60.0) -> Scan:
    """A brain within a dark skull, a lesion of 12 mm inside it, a fainter one, and a bright one beside it."""
    x, y, z = (axis * MM - 100 for axis in np.indices((50, 50, 50)))
    voxels = np.where(x**2 + y**2 + z**2 < 90**2, 16.0, 0.0)
    voxels[x**2 + y**2 + z**2 < radius**2] = 40
    voxels[(x - 20) ** 2 + y**2 + z**2 < 12**2] = 100
    voxels[(x + 30) ** 2 + y**2 + z**2 < 12**2] = 70
    voxels[(x - 80) ** 2 + y**2 + z**2 < 8**2] = 100
    scan = Scan(voxels.astype(np.float32), AFFINE, Modality.GREY, "given", "head", Path("head.nii.gz"))
    scan.details["range"] = (0, 100)
    return scan


def peaks(result) -> list[float]:
    """Where the candidates lie along x, to 10 mm."""
    return sorted(10 * round((lesion.center_mm[0] - 100) / 10) for lesion in result.lesions)


def test_by_default_a_trusted_brain_is_the_region():
    result = medzsad.predict(head(), Bright())
    assert peaks(result) == [-30, 20]
    assert result.settings["roi"] == "brain"
    assert any("region of interest: the brain" in note for note in result.scan.notes)
    assert not result.anomaly_map[~result.brain].any()
    for score in result.slice_scores:
        assert score.score == pytest.approx(result.anomaly_map.take(score.index, axis=score.axis).max())
    whole = medzsad.predict(head(), Bright(), roi="whole")
    assert peaks(whole) == [-30, 20, 80]
    assert len(whole.slice_scores) > len(result.slice_scores)


def test_what_is_no_brain_is_no_region_and_refused_if_asked_for():
    small = head(radius=36.0)
    result = medzsad.predict(small, Bright())
    assert result.settings["roi"] == "whole"
    assert not any("brain" in note for note in result.scan.notes)
    with pytest.raises(BadInput, match="not to be trusted"):
        medzsad.predict(small, Bright(), roi="brain")
    with pytest.raises(BadInput, match="does not mark the brain") as caught:
        medzsad.predict(head(), Bright(brain=False), roi="brain")
    assert "\n" not in str(caught.value)


def test_the_brain_is_written_on_demand(tmp_path):
    result = medzsad.predict(head(), Bright())
    files = result.save(tmp_path, formats=("nifti", "brain", "json"))
    image = nibabel.load(files["brain"])
    assert files["brain"].name == "head_brain.nii.gz"
    np.testing.assert_array_equal(image.affine, AFFINE)
    np.testing.assert_array_equal(np.asarray(image.dataobj) > 0, result.brain)
    assert json.loads(files["json"].read_text())["settings"]["roi"] == "brain"
    with pytest.raises(BadInput, match="does not mark the brain"):
        medzsad.predict(head(), Bright(brain=False)).save(tmp_path / "none", formats=("brain",))
    assert not (tmp_path / "none").exists()


def test_a_mask_of_another_grid_is_the_region(tmp_path):
    mask = np.zeros((30, 30, 30), np.uint8)
    mask[20:29] = 1
    path = tmp_path / "ear.nii.gz"
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([7.0, 7.0, 7.0, 1.0])), path)
    result = medzsad.predict(head(), Bright(), roi=path)
    assert peaks(result) == [80]
    assert result.settings["roi"] == "mask"
    assert not result.anomaly_map[:34].any()


def test_a_region_in_the_air_is_refused():
    air = np.zeros((50, 50, 50), bool)
    air[0:2, 0:2, 0:2] = True
    with pytest.raises(BadInput, match="only air"):
        medzsad.predict(head(), Bright(), roi=air)


def test_rules_are_those_of_the_detector_unless_asked_for():
    ours, theirs = Bright(brain=False), Bright(brain=False)
    ours.volume_rules = MEASURED_RULES
    off = medzsad.predict(head(), theirs)
    assert not off.hidden_lesions
    assert off.settings["volume_rules"]["resolution_mm"] == 0
    np.testing.assert_array_equal(off.mask, off.above_threshold)
    on = medzsad.predict(head(), ours)
    np.testing.assert_array_equal(
        medzsad.predict(head(), theirs, volume_rules="on").anomaly_map, on.anomaly_map
    )
    np.testing.assert_array_equal(
        medzsad.predict(head(), ours, volume_rules="off").anomaly_map, off.anomaly_map
    )
    assert on.score == off.score  # of the slices
    ours.volume_rules = replace(MEASURED_RULES, score_from_candidates=True)
    assert medzsad.predict(head(), ours).score == on.lesions[0].score
    ours.volume_rules = MEASURED_RULES
    one = medzsad.predict(head(), ours, max_candidates=1)
    assert (len(one.lesions), len(one.hidden_lesions)) == (1, 2)
    assert len(medzsad.predict(head(), ours, min_volume=5).lesions) == 2
    assert len(medzsad.predict(head(), ours, all_candidates=True).lesions) == 3


@pytest.mark.parametrize(
    "options",
    [{"volume_rules": "maybe"}, {"min_volume": -1}, {"max_candidates": 0}, {"roi": "nowhere.nii"}],
    ids=lambda options: next(iter(options)),
)
def test_bad_values_are_refused(options):
    with pytest.raises(BadInput):
        medzsad.predict(head(), Bright(), **options)


def test_a_score_is_put_beside_those_of_normal_heads_where_it_was_made_like_them(tmp_path):
    detector = Bright()
    detector.normal_scores = (NormalScores.of("MR head", "real", np.linspace(0.3, 0.5, 20), NO_RULES),)
    scan = replace(head(), modality=Modality.MR)
    result = medzsad.predict(scan, detector)
    assert result.score_context == (ScoreContext("MR head", "real", 20, 1.0),)
    files = result.save(tmp_path, formats=("json", "html"))
    assert json.loads(files["json"].read_text())["score_context"][0]["higher_than"] == 1
    assert "higher than 100 % of 20 real normal MR heads" in files["html"].read_text()
    again = prediction_from(scan, result.anomaly_map, result_meta(result))
    assert again.score_context == result.score_context
    for other in ({"roi": "whole"}, {"plane": "coronal"}, {"volume_rules": "on"}, {"threshold": 0.3}):
        assert medzsad.predict(scan, detector, **other).score_context == ()
    assert medzsad.predict(head(), detector).score_context == ()  # of unknown modality
    small = replace(head(radius=36.0), modality=Modality.MR)
    assert medzsad.predict(small, detector).score_context == ()


def test_images_are_left_alone():
    picture = np.zeros((60, 80), np.float32)
    picture[10:50, 10:70] = 0.3
    picture[20:30, 20:30], picture[40, 40:48] = 1.0, 0.9
    detector = Bright(brain=False)
    plain = medzsad.predict(picture, detector, name="picture")
    detector.volume_rules = MEASURED_RULES
    ruled = medzsad.predict(picture, detector, name="picture", volume_rules="on")
    np.testing.assert_array_equal(ruled.anomaly_map, plain.anomaly_map)
    np.testing.assert_array_equal(ruled.mask, plain.above_threshold)
    assert ruled.score == plain.score
    assert "volume_rules" not in ruled.settings


def test_a_volume_of_one_slice_is_smoothed_with_nothing():
    whole = head()
    scan = Scan(
        whole.voxels[:, :, 25:26], np.diag([MM, MM, 1.0, 1.0]), Modality.GREY, "given", "one", Path("one")
    )
    scan.details["range"] = (0, 100)
    detector = Bright(brain=False)
    detector.volume_rules = replace(MEASURED_RULES, guide_mm=0)
    off, on = (medzsad.predict(scan, detector, volume_rules=rules) for rules in ("off", "auto"))
    np.testing.assert_allclose(on.anomaly_map, off.anomaly_map, atol=1e-6)


def test_a_map_follows_the_scan_with_the_values_that_it_had():
    detector = Bright(brain=True)
    detector.volume_rules = replace(MEASURED_RULES, guide_mm=0)
    plain = medzsad.predict(head(), detector)
    detector.volume_rules = MEASURED_RULES
    guided = medzsad.predict(head(), detector)
    assert guided.settings["volume_rules"]["guide_mm"] == 8
    assert (guided.anomaly_map != plain.anomaly_map).any()
    assert (guided.anomaly_map[~plain.brain] == 0).all()
    before, after = (np.sort(each.anomaly_map, axis=None) for each in (plain, guided))
    np.testing.assert_allclose(after, before, atol=0.06)  # as fine as the bins of so few voxels


def test_a_volume_in_colour_guides_nothing():
    voxels = np.random.default_rng(0).integers(0, 255, (24, 24, 8, 3)).astype(np.uint8)
    maps = []
    for guide_mm in (0, 8):
        detector = Bright(brain=False)
        detector.volume_rules = replace(MEASURED_RULES, guide_mm=guide_mm)
        maps.append(medzsad.predict(voxels, detector, affine=np.eye(4), modality="rgb").anomaly_map)
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize("name", ["example_mr_sm", "example_ct_sm"])
def test_a_body_holds_no_brain_to_trust(name: str, shared: Callable[[str], Path]) -> None:
    path = shared(f"data/body_ct_small/tests/reference_files/{name}.nii.gz")
    result = medzsad.predict(path, "medzsad-mini")
    assert result.settings["roi"] == "whole"
    with pytest.raises(BadInput, match="not to be trusted"):
        medzsad.predict(path, "medzsad-mini", roi="brain")
