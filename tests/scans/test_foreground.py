"""Where the patient is."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from shared_data import Shared

from medzsad.scans.foreground import foreground_mask, padding_value
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality, Scan


def scan_of(
    voxels: np.ndarray, modality: Modality, *, step: float = 2.0, is_2d: bool = False, **details: object
) -> Scan:
    affine = np.diag([step, step, step, 1.0])
    return Scan(
        voxels.astype(np.float32), affine, modality, "given", "s", Path("s"), is_2d=is_2d, details=details
    )


def ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    centre = (np.array(shape) - 1) / 2
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1)
    return distance <= radius


@pytest.fixture
def body_ct() -> tuple[Scan, np.ndarray]:
    """A body with an air-filled lung inside, above a thin table."""
    shape = (60, 60, 20)
    noise = np.random.default_rng(0).normal(0, 10, shape)
    body = np.broadcast_to(ball((60, 60, 1), 20), shape)
    lung = np.broadcast_to(ball((60, 60, 1), 8), shape)
    voxels = np.where(lung, -800, np.where(body, 40, -1000)) + noise
    voxels[5:55, 55:57] = 200  # the table
    return scan_of(voxels, Modality.CT), body


def test_ct_body_without_table_but_with_lungs(body_ct: tuple[Scan, np.ndarray]) -> None:
    scan, body = body_ct
    np.testing.assert_array_equal(foreground_mask(scan), body)


def test_mr_head_in_noise() -> None:
    shape = (48, 48, 48)
    head = ball(shape, 18)
    rng = np.random.default_rng(0)
    voxels = np.where(head, 500, 0) + np.abs(rng.normal(0, 10, shape))
    voxels[ball(shape, 6)] = 5  # dark inside: cerebrospinal fluid
    mask = foreground_mask(scan_of(voxels, Modality.MR))
    assert (mask == head).mean() > 0.99
    assert mask[ball(shape, 6)].all()


@pytest.mark.parametrize("padding", [-3.6243944, 0.0, 99.0])
def test_skull_stripped(padding: float) -> None:
    shape = (40, 40, 40)
    brain = ball(shape, 14)
    voxels = np.where(brain, np.random.default_rng(0).normal(0, 1, shape), padding)
    scan = scan_of(voxels, Modality.MR)
    assert padding_value(scan) == pytest.approx(padding)
    np.testing.assert_array_equal(foreground_mask(scan), brain)


def test_noise_has_no_padding() -> None:
    voxels = np.random.default_rng(0).normal(0, 1, (20, 20, 20))
    assert padding_value(scan_of(voxels, Modality.MR)) is None


def test_declared_padding_counts_if_it_occurs() -> None:
    voxels = np.random.default_rng(0).normal(0, 1, (20, 20, 20))
    voxels[3, 3, 3] = -2000
    assert padding_value(scan_of(voxels, Modality.CT, padding_value=-2000)) == -2000
    assert padding_value(scan_of(voxels, Modality.CT, padding_value=-3000)) is None


@pytest.mark.parametrize("modality", [Modality.US, Modality.RGB])
def test_content_of_dark_framed_images(modality: Modality) -> None:
    sector = ball((50, 40, 1), 15)
    grey = np.where(sector, 120, 3)
    voxels = np.repeat(grey[..., None], 3, axis=3) if modality is Modality.RGB else grey
    scan = scan_of(voxels, modality, is_2d=True, range=[0, 255])
    np.testing.assert_array_equal(foreground_mask(scan), sector)


def test_radiograph_without_collimation_is_all_foreground() -> None:
    voxels = np.random.default_rng(0).normal(1000, 100, (30, 30, 1))
    assert foreground_mask(scan_of(voxels, Modality.XRAY)).all()


def test_collimation_is_no_foreground() -> None:
    voxels = np.random.default_rng(0).normal(1000, 100, (30, 30, 1))
    voxels[:8] = 0
    mask = foreground_mask(scan_of(voxels, Modality.XRAY))
    assert not mask[:8].any()
    assert mask[8:].all()


def test_never_empty() -> None:
    air = np.random.default_rng(0).normal(-1000, 5, (10, 10, 10))
    assert foreground_mask(scan_of(air, Modality.CT)).all()


def test_single_slice_volume() -> None:
    body = ball((60, 60, 1), 20)
    mask = foreground_mask(scan_of(np.where(body, 40, -1000), Modality.CT))
    np.testing.assert_array_equal(mask, body)


def test_same_mask_however_the_voxels_are_stored(shared: Shared) -> None:
    path = shared("data/body_ct_small/tests/reference_files/example_mr_sm.nii.gz")
    scan = read_scan(path)
    expected = nibabel.Nifti1Image(foreground_mask(scan).astype(np.uint8), scan.affine)
    for order in list(itertools.permutations(range(3)))[1::2]:
        for flips in ((1, 1, -1), (-1, 1, 1), (-1, -1, -1)):
            turn = np.column_stack([order, flips]).astype(float)
            turned = nibabel.Nifti1Image(scan.voxels, scan.affine).as_reoriented(turn)
            other = Scan(np.asarray(turned.dataobj), turned.affine, scan.modality, "given", "s", path)
            np.testing.assert_array_equal(foreground_mask(other), expected.as_reoriented(turn).dataobj)


def test_real_brains(shared: Shared) -> None:
    folder = shared("data/brats2013/pat0001")
    brain = np.asarray(nibabel.load(folder / "brainmask.nii.gz").dataobj) > 0.5
    mask = foreground_mask(read_scan(folder / "Flair_subtrMeanDivStd.nii.gz"))
    assert (mask & brain).sum() > 0.99 * brain.sum()
    assert (mask | brain).sum() < 1.01 * brain.sum()


def test_real_head_ct_loses_its_holder(shared: Shared) -> None:
    scan = read_scan(shared("data/dicom_head_ct", files=28))
    mask = foreground_mask(scan)
    assert 0.2 < mask.mean() < 0.4
    head_holder = (scan.voxels > -500) & ~mask
    assert head_holder.sum() > 1000
