from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from medzsad.detectors.volume_rules import MEASURED_RULES
from medzsad.errors import BadInput
from medzsad.results.halos import best_split
from medzsad.results.lesions import (
    CandidateChoice,
    CandidateRules,
    find_lesions,
    parse_threshold,
    resolve_threshold,
)

AFFINE = np.array([[-2.0, 0, 0, 40], [0, 2, 0, -30], [0, 0, 5, 10], [0, 0, 0, 1]])


def two_boxes() -> tuple[np.ndarray, np.ndarray]:
    anomaly_map = np.zeros((20, 20, 10), np.float32)
    anomaly_map[2:5, 2:5, 2:5] = 0.7
    anomaly_map[10:16, 10:16, 4:8] = 0.6
    anomaly_map[12, 12, 5] = 0.9
    return anomaly_map, anomaly_map > 0.5


def test_lesions_have_volume_place_and_values():
    big, small = find_lesions(*two_boxes(), AFFINE).lesions
    assert big.voxels == 6 * 6 * 4
    assert big.volume_ml == pytest.approx(144 * 20 / 1000)
    assert big.center_voxel == (12, 12, 6)
    assert big.center_mm == pytest.approx((-2 * 12.5 + 40, 2 * 12.5 - 30, 5 * 5.5 + 10))
    assert big.bounding_box == ((10, 15), (10, 15), (4, 7))
    assert big.maximum == pytest.approx(0.9)
    assert big.mean == pytest.approx((0.6 * 143 + 0.9) / 144, rel=1e-5)
    assert small.voxels == 27


def test_the_peak_lies_inside_where_the_centre_of_mass_does_not():
    ring = np.zeros((20, 20, 6), np.float32)
    ring[5:16, 5:16, 2:4] = 0.4
    ring[7:14, 7:14, 2:4] = 0
    ring[15, 8, 2] = ring[5, 5, 3] = 0.8  # the first is the one nearer to the middle
    ((lesion,), _, _) = find_lesions(ring, ring > 0, AFFINE)
    assert ring[lesion.center_voxel] == 0
    assert lesion.peak_voxel == (15, 8, 2)
    assert lesion.peak_mm == (-2 * 15 + 40, 2 * 8 - 30, 5 * 2 + 10)


def test_specks_are_left_out_and_diagonal_neighbours_belong_together():
    mask = np.zeros((20, 20, 20), bool)
    mask[0, 0, 0] = True
    for i in range(5, 16):
        mask[i, i, i] = True
    values = mask.astype(np.float32)
    lesions, labels, hidden = find_lesions(values, mask, np.eye(4))
    assert len(lesions) == 1
    assert not hidden
    assert (labels[5, 5, 5], labels[8, 8, 8], labels[0, 0, 0], labels[1, 1, 1]) == (1, 1, 2, 0)
    assert len(find_lesions(values, mask, np.eye(4), rules=CandidateRules(0.0)).lesions) == 2


def four_boxes() -> tuple[np.ndarray, np.ndarray]:
    """Two equal ones of 64 mm3 at 0.8, a faint large one at 0.3 and a speck at 0.9."""
    anomaly_map = np.zeros((30, 30, 30), np.float32)
    anomaly_map[1:5, 1:5, 1:5] = anomaly_map[20:24, 1:5, 1:5] = 0.8
    anomaly_map[5:20, 10:25, 10:25] = 0.3
    anomaly_map[28, 28, 28] = 0.9
    return anomaly_map, anomaly_map > 0.2


def test_faint_candidates_are_hidden_and_not_in_the_mask_but_not_lost():
    values, mask = four_boxes()
    shown, labels, hidden = find_lesions(values, mask, np.eye(4), rules=CandidateRules(10.0, 0.5))
    assert [lesion.maximum for lesion in shown] == pytest.approx([0.8, 0.8])
    assert [lesion.voxels for lesion in hidden] == [15**3]
    np.testing.assert_array_equal(labels > 0, values == np.float32(0.8))
    everything, labels, hidden = find_lesions(values, mask, np.eye(4))
    assert len(everything) == 3
    assert not hidden
    np.testing.assert_array_equal(labels > 0, mask)


def test_a_speck_does_not_hide_what_is_large_enough():
    values, mask = four_boxes()
    rules = CandidateRules(10.0, 0.85)  # of 0.9 it would leave out 0.76, but that is the speck's
    assert len(find_lesions(values, mask, np.eye(4), rules=rules).lesions) == 2


def test_a_minimum_volume_and_a_largest_number():
    values, mask = four_boxes()
    (large,), labels, hidden = find_lesions(values, mask, np.eye(4), rules=CandidateRules(100.0))
    assert large.voxels == 15**3
    assert len(hidden) == 2
    np.testing.assert_array_equal(labels > 0, values == np.float32(0.3))
    shown, _, hidden = find_lesions(values, mask, np.eye(4), rules=CandidateRules(max_candidates=1))
    assert (len(shown), len(hidden)) == (1, 2)
    thick = np.diag([1.0, 1.0, 5.0, 1.0])  # 64 voxels are 320 mm3
    assert len(find_lesions(values, mask, thick, rules=CandidateRules(100.0)).lesions) == 3


def test_the_score_is_the_mean_over_the_highest_millilitre():
    values, mask = four_boxes()
    first, second, third = find_lesions(values, mask, np.eye(4)).lesions
    assert first.score == pytest.approx(0.3)  # 3375 mm3
    assert second.score == third.score == pytest.approx(0.8 * 64 / 1000)


def test_what_a_caller_asks_for_is_checked():
    for wrong in (
        {"min_volume": -1.0},
        {"min_volume": float("nan")},
        {"min_volume": 1e308},
        {"max_candidates": 0},
    ):
        with pytest.raises(BadInput):
            CandidateChoice(**wrong)
    with pytest.raises(BadInput, match="leave out one"):
        CandidateChoice(min_volume=1.0, all_candidates=True)
    assert CandidateChoice(all_candidates=True).rules(MEASURED_RULES, has_geometry=True) == CandidateRules()
    rules = replace(MEASURED_RULES, least_peak=0.4)
    assert CandidateChoice().rules(rules, has_geometry=True).least_peak == 0.4
    given = CandidateChoice().rules(rules, has_geometry=True, own_threshold=False)
    assert (given.least_peak, given.two_classes) == (0, None)
    own = replace(MEASURED_RULES, relative_volume=0.01, dip=0.9, neck=1.5)
    wanted = CandidateChoice().rules(own, has_geometry=True)
    assert (wanted.relative_volume, wanted.dip, wanted.neck) == (0.01, 0.9, 1.5)
    given = CandidateChoice().rules(own, has_geometry=True, own_threshold=False)
    assert (given.relative_volume, given.dip) == (0, 1)
    assert CandidateChoice(min_volume=0.02).rules(own, has_geometry=True).relative_volume == 0
    assert CandidateChoice().rules(rules, has_geometry=True).two_classes == rules.two_classes
    assert CandidateChoice(min_volume=0.5).rules(MEASURED_RULES, has_geometry=True).min_volume_mm3 == 500
    with pytest.raises(BadInput, match="voxel size is not known"):
        CandidateChoice(min_volume=0.5).rules(MEASURED_RULES, has_geometry=False)


def test_nothing_suspicious_and_no_geometry():
    empty = np.zeros((4, 4, 4), np.float32)
    assert find_lesions(empty, empty > 0, np.eye(4)).lesions == []
    assert find_lesions(*two_boxes(), np.eye(4), has_geometry=False).lesions[0].volume_ml is None


def test_equal_lesions_in_one_box_keep_their_own_labels():
    mask = np.zeros((9, 9, 3), bool)
    mask[0, 0:7, 1] = mask[0:7, 0, 1] = True  # an L ...
    mask[8, 2:9, 1] = mask[2:9, 8, 1] = True  # ... and its like, turned, in a box that overlaps
    rules = CandidateRules(1.0)
    lesions, labels, _ = find_lesions(mask.astype(np.float32), mask, np.eye(4), rules=rules)
    assert len(lesions) == 2
    for number, lesion in enumerate(lesions, start=1):
        assert np.count_nonzero(labels == number) == lesion.voxels
        assert labels[lesion.peak_voxel] == number
    np.testing.assert_array_equal(labels > 0, mask)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5", 0.5), (0.25, 0.25), ("p99.5", "p99.5"), ("P90", "p90"), ("otsu", "otsu"), (1, 1.0)],
)
def test_rules_that_are_understood(text, expected):
    assert parse_threshold(text) == expected


@pytest.mark.parametrize("text", ["1.5", "p101", "high", "-0.1", "nan", "", "p"])
def test_rules_that_are_not(text):
    with pytest.raises(BadInput, match="threshold"):
        parse_threshold(text)


def test_percentiles_and_otsu_look_at_the_values():
    values = np.concatenate([np.full(990, 0.1), np.full(10, 0.9)]).astype(np.float32)
    assert resolve_threshold(0.4, values) == 0.4
    assert resolve_threshold("p99.5", values) == pytest.approx(0.9)
    assert 0.1 <= resolve_threshold("otsu", values) < 0.9
    assert resolve_threshold("otsu", np.full(5, 0.3)) == 1.0
    assert resolve_threshold("p50", np.array([])) == 1.0


def test_candidates_that_reach_no_least_value_are_hidden_also_alone():
    values, _ = four_boxes()
    values[values == np.float32(0.8)] = 0
    shown, labels, hidden = find_lesions(
        values, values > 0.2, np.eye(4), rules=CandidateRules(10.0, least_peak=0.5)
    )
    assert (shown, len(hidden), labels.any()) == ([], 1, False)
    rules = CandidateRules(10.0, least_peak=0.3)  # of float32 0.3, a little more
    assert len(find_lesions(values, values > 0.2, np.eye(4), rules=rules).lesions) == 1


def test_what_is_wide_and_lies_in_one_slice_is_hidden_and_decides_about_no_other():
    anomaly_map = np.zeros((30, 30, 10), np.float32)
    anomaly_map[2:14, 2:14, 3] = 0.9  # 24 mm wide, 5 mm thick
    anomaly_map[2:6, 20:24, 3] = 0.5  # 8 mm wide
    anomaly_map[20:28, 5:25, 6:8] = 0.4  # two slices
    rules = CandidateRules(10.0, 0.5, one_slice_width=4.0)
    found = find_lesions(anomaly_map, anomaly_map > 0, AFFINE, rules=rules)
    assert [lesion.maximum for lesion in found.lesions] == pytest.approx([0.4, 0.5])
    assert [lesion.maximum for lesion in found.hidden] == pytest.approx([0.9])
    assert not found.labels[2:14, 2:14, 3].any()
    assert find_lesions(anomaly_map, anomaly_map > 0, AFFINE).hidden == []
    assert CandidateChoice().rules(MEASURED_RULES, has_geometry=False).one_slice_width is None


def test_specks_beside_a_large_candidate_are_hidden():
    anomaly_map = np.zeros((30, 30, 12), np.float32)
    anomaly_map[2:14, 2:14, 2:10], anomaly_map[20:23, 20:23, 4:6] = 0.7, 0.9
    rules = CandidateRules(10.0, relative_volume=0.05)
    found = find_lesions(anomaly_map, anomaly_map > 0, AFFINE, rules=rules)
    assert [lesion.maximum for lesion in found.lesions] == pytest.approx([0.7])
    assert [lesion.maximum for lesion in found.hidden] == pytest.approx([0.9])
    # What is hidden itself is no measure for others.
    fainter = replace(rules, least_peak=0.8)
    found = find_lesions(anomaly_map, anomaly_map > 0, AFFINE, rules=fainter)
    assert [lesion.maximum for lesion in found.lesions] == pytest.approx([0.9])


def test_candidates_are_divided_between_their_peaks_and_lose_no_voxel():
    anomaly_map = np.zeros((30, 20, 20), np.float32)
    anomaly_map[2:9, 6:13, 6:13], anomaly_map[12:19, 6:13, 6:13] = 0.9, 0.8
    anomaly_map[9:12, 9, 9] = 0.55  # a thread
    anomaly_map[24:28, 2:4, 2:4] = 0.7  # another
    mask = anomaly_map > 0.5
    rules = CandidateRules(10.0, least_peak=0.6, dip=0.9, neck=1.5)
    found = find_lesions(anomaly_map, mask, np.eye(4), rules=rules)
    assert sorted(lesion.maximum for lesion in found.lesions) == pytest.approx([0.7, 0.8, 0.9])
    np.testing.assert_array_equal(found.labels > 0, mask)
    for number, lesion in enumerate(found.lesions, start=1):
        assert np.count_nonzero(found.labels == number) == lesion.voxels
        assert found.labels[lesion.peak_voxel] == number
    assert len(find_lesions(anomaly_map, mask, np.eye(4)).lesions) == 2


def test_what_is_shown_does_not_depend_on_where_it_is_divided():
    """Neither a small knob nor a flat flap of a large candidate goes with the division."""
    anomaly_map = np.zeros((40, 40, 12), np.float32)
    anomaly_map[2:22, 2:22, 2:10] = 0.8
    anomaly_map[22:24, 10, 5], anomaly_map[24:28, 9:12, 4:7] = 0.6, 0.75  # a knob on a thread
    anomaly_map[10, 22:24, 5], anomaly_map[4:20, 24:38, 5] = 0.6, 0.75  # a flap in one slice
    rules = CandidateRules(10.0, 0.5, 0.6, relative_volume=0.02, one_slice_width=2.0, dip=0.9, neck=0.7)
    found = find_lesions(anomaly_map, anomaly_map > 0.5, AFFINE, rules=rules)
    assert len(found.lesions) == 3
    assert found.hidden == []
    np.testing.assert_array_equal(found.labels > 0, anomaly_map > 0.5)
    two = find_lesions(anomaly_map, anomaly_map > 0.5, AFFINE, rules=replace(rules, max_candidates=2))
    assert [len(two.lesions), len(two.hidden)] == [2, 1]
    assert two.labels.max() == 2


@pytest.mark.parametrize("turn", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_division_does_not_depend_on_the_order_of_storage(turn):
    r = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(r.standard_normal((40, 36, 30)), 2.5)
    values = np.round(0.5 + 0.2 * smooth / smooth.std(), 1).clip(0, 1).astype(np.float32)  # many plateaus
    rules = CandidateRules(10.0, least_peak=0.6, dip=0.9, neck=0.7)
    whole = find_lesions(values, values > 0.55, np.eye(4), rules=rules)
    turned = np.transpose(values, turn)[::-1, :, ::-1]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, source in enumerate(turn):  # voxel axes of the turned array, in the patient
        affine[source, axis] = 1.0
    affine[:3] = affine[:3] @ np.array(
        [[-1, 0, 0, turned.shape[0] - 1], [0, 1, 0, 0], [0, 0, -1, turned.shape[2] - 1], [0, 0, 0, 1]]
    )
    again = find_lesions(turned, turned > 0.55, affine, rules=rules)
    assert len(whole.lesions) > 3
    assert sorted(one.voxels for one in again.lesions) == sorted(one.voxels for one in whole.lesions)


def test_a_cut_core_in_pieces_stays_one_candidate():
    anomaly_map = np.full((24, 24, 24), 0.6, np.float32)
    anomaly_map[1::4, 1::4, 1::4] = 0.95
    rules = CandidateRules(10.0, least_peak=0.6, two_classes=0.8, dip=0.9, neck=0.7)
    found = find_lesions(anomaly_map, anomaly_map > 0.5, np.eye(4), rules=rules)
    assert [lesion.voxels for lesion in found.lesions] == [6**3]


def test_a_core_is_outlined_without_its_halo_and_what_has_none_is_left_alone():
    anomaly_map = np.zeros((40, 40, 12), np.float32)
    anomaly_map[4:16, 4:16, 2:8] = np.linspace(0.15, 0.25, 12)[:, None, None]  # the halo
    anomaly_map[7:13, 7:13, 3:7] = np.linspace(0.7, 0.8, 6)[:, None, None]
    anomaly_map[22:34, 22:34, 2:8] = np.linspace(0.15, 0.8, 12)[:, None, None]  # spread evenly
    found = find_lesions(anomaly_map, anomaly_map > 0, AFFINE, rules=CandidateRules(two_classes=0.8))
    assert sorted(lesion.voxels for lesion in found.lesions) == [6 * 6 * 4, 12 * 12 * 6]
    np.testing.assert_array_equal(found.labels[:20, :20] > 0, anomaly_map[:20, :20] > 0.5)
    whole = find_lesions(anomaly_map, anomaly_map > 0, AFFINE).lesions
    assert [lesion.voxels for lesion in whole] == [12 * 12 * 6] * 2


@pytest.mark.parametrize(
    ("values", "border", "share"),
    [([0.2, 0.2, 0.8, 0.8], 0.8, 1.0), (np.linspace(0, 1, 1001), 0.501, 0.75), ([0.5, 0.5], 0.5, 0.0)],
)
def test_how_clear_a_split_is(values, border, share):
    assert best_split(np.array(values)) == pytest.approx((border, share), abs=2e-3)


def test_a_large_candidate_of_one_voxel_has_no_halo() -> None:
    anomaly_map = np.zeros((4, 4, 4), np.float32)
    anomaly_map[1, 2, 3] = 0.7
    affine = np.diag([30.0, 30.0, 30.0, 1.0])
    found = find_lesions(anomaly_map, anomaly_map > 0, affine, rules=CandidateRules(two_classes=0.8))
    assert [lesion.volume_ml for lesion in found.lesions] == pytest.approx([27.0])
