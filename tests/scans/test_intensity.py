"""Voxel values to [0, 1]."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shared_data import Shared

import medzsad
from medzsad.errors import BadInput
from medzsad.scans.foreground import foreground_mask
from medzsad.scans.intensity import (
    WINDOW_OF_BODY_PART,
    WINDOWS,
    as_shown,
    default_window,
    intensity_scaling,
    parse_windows,
)
from medzsad.scans.modality import kind_of
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality, Scan


def scan_of(voxels: np.ndarray, modality: Modality, **details: object) -> Scan:
    return Scan(voxels.astype(np.float32), np.eye(4), modality, "given", "s", Path("s.nii"), details=details)


@pytest.fixture
def ct() -> Scan:
    voxels = np.random.default_rng(0).uniform(-1000, 1500, (8, 9, 10))
    return scan_of(voxels, Modality.CT, body_part="HEAD")


def test_named_windows() -> None:
    assert {"brain", "subdural", "bone", "lung", "mediastinum", "abdomen"} <= set(WINDOWS)


@pytest.mark.parametrize(
    ("window", "low", "high"), [("brain", 0, 80), ("40,80", 0, 80), ("Lung", -1350, 150)]
)
def test_one_window(ct: Scan, window: str, low: float, high: float) -> None:
    scaled = intensity_scaling(ct, window)(ct.voxels)
    assert scaled.shape == (3, 8, 9, 10)
    assert scaled.dtype == np.float32
    expected = np.clip((ct.voxels - low) / (high - low), 0, 1)
    for channel in scaled:
        np.testing.assert_allclose(channel, expected, atol=1e-6)


def test_three_windows_fill_the_channels(ct: Scan) -> None:
    scaling = intensity_scaling(ct, "brain+subdural + bone")
    scaled = scaling(ct.voxels)
    for channel, name in zip(scaled, ("brain", "subdural", "bone"), strict=True):
        np.testing.assert_array_equal(channel, intensity_scaling(ct, name)(ct.voxels)[0])
    assert scaling.description.startswith("CT, windows brain+subdural+bone")
    json.dumps(scaling.settings)


def test_two_windows_repeat_the_second(ct: Scan) -> None:
    scaled = intensity_scaling(ct, "brain+bone")(ct.voxels)
    np.testing.assert_array_equal(scaled[1], scaled[2])
    assert not np.array_equal(scaled[0], scaled[1])


def test_default_window_is_said(ct: Scan) -> None:
    scaling = intensity_scaling(ct)
    assert scaling.description == "CT, window brain (0 to 80 HU, for DICOM body part HEAD)"
    assert scaling.settings == {
        "modality": "ct",
        "method": "window",
        "ranges": [[0.0, 80.0]],
        "window": "brain",
    }


@pytest.mark.parametrize("window", ["brian", "40", "40,0", "40,-5", "1,2,3", "nan,4", "", "a+b+c+d"])
def test_windows_that_are_none(ct: Scan, window: str) -> None:
    with pytest.raises(BadInput, match="`window`"):
        intensity_scaling(ct, window)


def test_window_names_are_for_ct() -> None:
    mr = scan_of(np.random.default_rng(0).normal(300, 50, (5, 5, 5)), Modality.MR)
    with pytest.raises(BadInput, match="not CT"):
        intensity_scaling(mr, "brain")
    scaled = intensity_scaling(mr, "300,100")(mr.voxels)
    np.testing.assert_allclose(scaled[1], np.clip((mr.voxels - 250) / 100, 0, 1), atol=1e-6)
    assert parse_windows("300,100") == [(300.0, 100.0)]


def test_slab_by_slab_is_the_same(ct: Scan) -> None:
    scaling = intensity_scaling(ct, "brain+bone")
    whole = scaling(ct.voxels)
    for k in range(10):
        np.testing.assert_array_equal(scaling(ct.voxels[:, :, k]), whole[..., k])


def test_mr_percentiles_of_the_foreground() -> None:
    rng = np.random.default_rng(0)
    voxels = rng.normal(500, 100, (30, 30, 30))
    voxels[:10] = 0
    scan = scan_of(voxels, Modality.MR)
    mask = voxels != 0
    scaling = intensity_scaling(scan, foreground=mask)
    low, high = np.percentile(scan.voxels[mask], (0.5, 99.5))
    assert scaling.low[0] == pytest.approx(low)
    assert scaling.high[2] == pytest.approx(high)
    assert scaling.description == f"MR, percentiles 0.5 to 99.5 of the foreground ({low:.6g} to {high:.6g})"
    assert scaling(scan.voxels)[:, :10].max() == 0


def test_padding_is_black_wherever_it_lies_in_the_range() -> None:
    voxels = np.random.default_rng(0).normal(0, 1, (20, 20, 20))
    voxels[:, :, :8] = 0.0  # z-scored, with the background at the mean
    scan = scan_of(voxels, Modality.MR)
    scaled = intensity_scaling(scan)(scan.voxels)
    assert scaled[..., :8].max() == 0
    assert 0.3 < scaled[..., 8:].mean() < 0.7


def test_bright_outliers_do_not_darken_the_rest() -> None:
    voxels = np.random.default_rng(0).normal(500, 100, (30, 30, 30))
    voxels[0, 0, 0] = 1e6
    scan = scan_of(voxels, Modality.MR)
    assert intensity_scaling(scan)(scan.voxels).mean() > 0.3


@pytest.mark.parametrize("modality", [Modality.GREY, Modality.US, Modality.XRAY])
def test_8_bit_images_keep_their_levels(modality: Modality) -> None:
    voxels = np.random.default_rng(0).integers(30, 90, (6, 7, 1))
    scan = scan_of(voxels, modality, range=[0, 255])
    np.testing.assert_allclose(intensity_scaling(scan)(scan.voxels)[0], voxels / 255, atol=1e-6)


def test_8_bit_image_given_as_mr_is_stretched() -> None:
    voxels = np.random.default_rng(0).integers(30, 90, (6, 7, 1))
    scan = scan_of(voxels, Modality.MR, range=[0, 255])
    assert intensity_scaling(scan)(scan.voxels).max() == 1


def test_colours_keep_their_channels() -> None:
    voxels = np.random.default_rng(0).integers(0, 255, (6, 7, 2, 3))
    scan = scan_of(voxels, Modality.RGB)
    scaled = intensity_scaling(scan)(scan.voxels)
    assert scaled.shape == (3, 6, 7, 2)
    np.testing.assert_allclose(scaled, np.moveaxis(voxels, -1, 0) / 255, atol=1e-6)
    with pytest.raises(BadInput, match="colour image"):
        intensity_scaling(scan, "40,80")


def test_nearly_constant_image() -> None:
    voxels = np.zeros((20, 20, 20))
    voxels[10, 10, 10] = 5
    scaled = intensity_scaling(scan_of(voxels, Modality.MR))(voxels)
    assert np.isfinite(scaled).all()
    assert scaled.max() == 1


def test_input_is_not_changed(ct: Scan) -> None:
    before = ct.voxels.copy()
    foreground_mask(ct)
    intensity_scaling(ct)(ct.voxels)
    np.testing.assert_array_equal(ct.voxels, before)


def test_real_skull_stripped_mr(shared: Shared) -> None:
    scan = read_scan(shared("data/brats2013/pat0001/Flair_subtrMeanDivStd.nii.gz"))
    mask = foreground_mask(scan)
    scaled = intensity_scaling(scan, foreground=mask)(scan.voxels)[0]
    assert scaled[~mask].max() == 0
    assert 0.2 < scaled[mask].mean() < 0.7


def test_every_default_is_a_window() -> None:
    assert set(WINDOW_OF_BODY_PART.values()) <= set(WINDOWS)


def body(inside: dict[str, float], step: float = 4.0) -> Scan:
    """A cylinder of soft tissue with a share of lung and of bone."""
    voxels = np.full((60, 60, 20), -1000.0, np.float32)
    voxels[10:50, 10:50] = 40
    rows = np.arange(12, 48)
    if "lung" in inside:
        voxels[12 : 12 + round(40 * inside["lung"]), rows[:, None]] = -750
    if "bone" in inside:
        voxels[10 : 10 + round(40 * inside["bone"]), 10:50] = 900
    return Scan(voxels, np.diag([step, step, step, 1]), Modality.CT, "given", "s", Path("s"))


@pytest.mark.parametrize(
    ("inside", "step", "window"),
    [
        ({"lung": 0.4}, 4.0, "lung"),
        ({}, 4.0, "abdomen"),
        ({"bone": 0.2}, 4.0, "brain"),
        ({"bone": 0.2}, 8.0, "abdomen"),
    ],
)
def test_contents_decide(inside: dict[str, float], step: float, window: str) -> None:
    assert default_window(body(inside, step)) == (window, "chosen from the values")


def test_body_part_decides_first() -> None:
    scan = replace(body({"lung": 0.4}), details={"body_part": "ABDOMEN"})
    assert default_window(scan) == ("abdomen", "for DICOM body part ABDOMEN")


def test_real_scans(shared: Shared) -> None:
    head = read_scan(shared("data/dicom_head_ct", files=28))
    assert default_window(head)[0] == "brain"
    assert default_window(replace(head, details={}))[0] == "brain"
    body = read_scan(shared("data/body_ct_small/tests/reference_files/example_ct_sm.nii.gz"))
    assert default_window(body)[0] == "abdomen"


def made_scan(modality: Modality, *, colour: bool = False, flat: bool = False) -> Scan:
    shape = (24, 20, 1 if flat else 3)
    values = np.random.default_rng(0).uniform(-200, 1200, (*shape, 3) if colour else shape)
    if colour:
        values = values.clip(0, 255)
    where = {"source": Path("x"), "name": "x", "is_2d": flat}
    return Scan(values.astype(np.float32), np.eye(4), modality, "given", **where)


PAIRS = ["+".join(pair) for pair in itertools.permutations(WINDOWS, 2)]


SEVERAL = [*PAIRS, "brain+subdural+bone", "40,80+600,2800"]


@pytest.mark.parametrize("window", [*WINDOWS, *SEVERAL])
@pytest.mark.parametrize("flat", [False, True])
def test_a_ct_is_grey_through_any_windows(window: str, flat: bool) -> None:
    ct = made_scan(Modality.CT, flat=flat)
    shown = as_shown(ct, intensity_scaling(ct, window))(ct.voxels)
    first = intensity_scaling(ct, window.split("+")[0])(ct.voxels)
    np.testing.assert_array_equal(shown, first)
    assert kind_of(ct) == "grey"


@pytest.mark.parametrize("modality", [m for m in Modality if m not in (Modality.RGB, Modality.CT)])
def test_radiology_is_grey_even_with_colours_in_it(modality: Modality) -> None:
    scan = made_scan(modality, colour=True)
    shown = as_shown(scan, intensity_scaling(scan))(scan.voxels)
    assert kind_of(scan) == "grey"
    np.testing.assert_array_equal(shown[0], shown[2])


def test_photographs_keep_their_colours() -> None:
    photo = made_scan(Modality.RGB, colour=True, flat=True)
    scaling = intensity_scaling(photo)
    assert kind_of(photo) == "colour"
    assert as_shown(photo, scaling) is scaling


@pytest.mark.parametrize("flat", [False, True])
def test_the_embedded_detector_says_what_it_saw(flat: bool) -> None:
    ct = made_scan(Modality.CT, flat=flat)
    detector = medzsad.load_detector("medzsad-mini", device="cpu")
    several = medzsad.predict(ct, detector, window="brain+subdural+bone")
    one = medzsad.predict(ct, detector, window="brain")
    np.testing.assert_array_equal(several.anomaly_map, one.anomaly_map)
    assert several.settings["shown_as"] == "grey"
    assert any("only the first of brain+subdural+bone" in note for note in several.scan.notes)
    assert not any("only the first" in note for note in one.scan.notes)
