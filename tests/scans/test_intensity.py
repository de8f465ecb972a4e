"""Voxel values to [0, 1]."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shared_data import Shared

from medzsad.errors import BadInput
from medzsad.scans.intensity import WINDOWS, foreground_mask, intensity_scaling, parse_windows
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
