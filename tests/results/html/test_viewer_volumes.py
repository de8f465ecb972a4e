from __future__ import annotations

import base64
import gzip
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from report_cases import LESIONS, make_picture, make_volume

from medzsad.results.html.viewer_volumes import block_affine, reduce_blocks, viewer_volumes
from medzsad.results.lesions import CandidateRules


def unpack(text: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_small_volumes_keep_their_grid_and_values():
    prediction = make_volume()
    volumes = viewer_volumes(prediction)
    assert volumes.factors == (1, 1, 1)
    assert volumes.note is None
    scan, anomaly, mask = unpack(volumes.scan), unpack(volumes.anomaly), unpack(volumes.mask)
    for image in (scan, anomaly, mask):
        np.testing.assert_allclose(image.affine, prediction.affine, atol=1e-4)
        assert image.header["descrip"].tobytes().strip(b"\0") == b""
    low, high = prediction.scaling.low[0], prediction.scaling.high[0]
    inside = prediction.scan.voxels > 0
    np.testing.assert_allclose(
        scan.get_fdata()[inside], prediction.scan.voxels[inside], atol=(high - low) / 5000
    )
    np.testing.assert_allclose(anomaly.get_fdata(), prediction.anomaly_map, atol=1 / 255)
    # The map is rounded down: no voxel may cross the threshold on its way into the report.
    assert (anomaly.get_fdata() <= prediction.anomaly_map + 1e-6).all()


def test_the_mask_is_the_predictions_and_costs_little():
    prediction = replace(make_volume(), rules=CandidateRules(relative_peak=0.9))
    assert 0 < prediction.mask.sum() < prediction.above_threshold.sum()
    volumes = viewer_volumes(prediction)
    np.testing.assert_allclose(unpack(volumes.mask).get_fdata(), prediction.mask)
    assert len(volumes.mask) < 0.03 * (len(volumes.scan) + len(volumes.anomaly))


def test_a_downsampled_mask_marks_what_holds_any_of_it():
    prediction = replace(make_volume(), rules=CandidateRules(relative_peak=0.9))
    volumes = viewer_volumes(prediction, max_voxels=8_000)
    mask = unpack(volumes.mask)
    np.testing.assert_allclose(mask.affine, volumes.affine, atol=1e-4)
    blocks = np.argwhere(prediction.mask) // volumes.factors
    expected = np.zeros(volumes.shape)
    expected[tuple(blocks.T)] = 1
    np.testing.assert_allclose(mask.get_fdata(), expected)
    assert "is marked if one of them is" in volumes.note


def test_whole_values_are_kept_exactly():
    prediction = make_volume()
    prediction.scan.voxels[:] = np.rint(prediction.scan.voxels)
    stored = unpack(viewer_volumes(prediction).scan).get_fdata()
    inside = prediction.scan.voxels > 0
    np.testing.assert_array_equal(stored[inside], prediction.scan.voxels[inside])


@pytest.mark.parametrize("max_voxels", [30_000, 8_000, 900])
def test_downsampling_keeps_places(max_voxels):
    prediction = make_volume()
    volumes = viewer_volumes(prediction, max_voxels=max_voxels)
    assert np.prod(volumes.shape) <= max_voxels
    assert max(volumes.factors) > 1
    assert "Downsampled" in volumes.note
    assert " x ".join(map(str, volumes.shape)) in volumes.note
    anomaly = unpack(volumes.anomaly)
    assert anomaly.shape == volumes.shape
    np.testing.assert_allclose(anomaly.affine, volumes.affine, atol=1e-4)
    # Where the viewer shows the highest value, the lesion is, in world mm.
    place = np.argwhere(anomaly.get_fdata() > 0.85).mean(axis=0)
    world = nibabel.affines.apply_affine(anomaly.affine, place)
    box = np.array(LESIONS[0][:3])
    expected = nibabel.affines.apply_affine(prediction.affine, (box.sum(axis=1) - 1) / 2)
    step = np.sqrt((volumes.affine[:3, :3] ** 2).sum(axis=0))
    assert (np.abs(world - expected) < step.max() / 2 + 0.1).all()


def test_downsampling_coarsens_the_finest_axis_first():
    volumes = viewer_volumes(make_volume(), max_voxels=40_000)
    assert volumes.factors[1] > 1  # 1.5 mm; the others are 2 and 3 mm
    assert volumes.factors[2] == 1


def test_files_stay_small():
    prediction = make_volume()
    prediction.scan.voxels[:] = np.random.default_rng(0).normal(100, 30, prediction.scan.shape)
    whole = viewer_volumes(prediction)
    limit = (len(whole.scan) + len(whole.anomaly) + len(whole.mask)) // 3
    small = viewer_volumes(prediction, max_characters=limit)
    assert len(small.scan) + len(small.anomaly) + len(small.mask) <= limit
    assert small.note is not None


def test_block_affine_is_where_the_blocks_voxels_are():
    affine = make_volume().affine
    coarse = block_affine(affine, (2, 3, 1))
    voxels = np.array([[x, y, 5] for x in (4, 5) for y in (6, 7, 8)])
    expected = nibabel.affines.apply_affine(affine, voxels).mean(axis=0)
    np.testing.assert_allclose(nibabel.affines.apply_affine(coarse, [2, 2, 5]), expected)


def test_reduce_blocks():
    array = np.arange(10, dtype=np.float32).reshape(5, 2, 1)
    np.testing.assert_array_equal(reduce_blocks(array, (2, 2, 1), "max")[:, 0, 0], [3, 7, 9])
    np.testing.assert_array_equal(reduce_blocks(array, (2, 2, 1), "mean")[:, 0, 0], [1.5, 5.5, 8.5])
    assert reduce_blocks(array, (1, 1, 1), "max") is array


def test_colour_is_stored_as_it_is_shown():
    prediction = make_picture()
    stored = np.asanyarray(unpack(viewer_volumes(prediction).scan).dataobj)
    rgb = np.stack([stored[name] for name in "RGB"], axis=-1)
    np.testing.assert_array_equal(rgb, prediction.scan.voxels.astype(np.uint8))
