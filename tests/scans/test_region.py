from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medzsad.errors import BadInput
from medzsad.scans.region import brain_region, parse_roi, region_of_interest
from medzsad.scans.scan import Modality, Scan

AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])


def head(shape: tuple[int, int, int] = (20, 24, 10), affine: np.ndarray = AFFINE) -> Scan:
    return Scan(np.zeros(shape, np.float32), affine, Modality.MR, "given", "head", Path("head.nii.gz"))


def written(path: Path, mask: np.ndarray, affine: np.ndarray) -> str:
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), path)
    return str(path)


def test_a_mask_on_the_scan_s_grid_is_taken_as_it_is(tmp_path):
    mask = np.zeros((20, 24, 10), bool)
    mask[3:9, 4:8, 2:5] = True
    found = region_of_interest(written(tmp_path / "roi.nii.gz", mask, AFFINE), head())
    np.testing.assert_array_equal(found, mask)
    np.testing.assert_array_equal(region_of_interest(mask, head()), mask)


def test_a_mask_on_a_finer_turned_and_shifted_grid_marks_the_same_place(tmp_path):
    fine = np.zeros((40, 30, 50), bool)
    affine = np.array([[-1.0, 0, 0, 39], [0, 0, 1, -2], [0, 1, 0, 5], [0, 0, 0, 1]])
    x, y, z = (39 - np.arange(40), np.arange(50) - 2, np.arange(30) + 5)  # mm along each of its axes
    fine |= (
        ((x >= 7) & (x < 19))[:, None, None] & ((z >= 10) & (z < 22))[None, :, None] & ((y >= 9) & (y < 17))
    )
    found = region_of_interest(written(tmp_path / "roi.nii.gz", fine, affine), head())
    inside = np.argwhere(found) @ AFFINE[:3, :3]
    assert inside.min(axis=0).tolist() == [8, 10, 12]
    assert inside.max(axis=0).tolist() == [18, 16, 20]


def test_a_region_outside_empty_or_of_another_shape_is_refused_with_one_line(tmp_path):
    mask = np.zeros((5, 5, 5), bool)
    mask[1:3, 1:3, 1:3] = True
    far = AFFINE.copy()
    far[:3, 3] = 500
    cases = {
        "marks no voxel of head": written(tmp_path / "far.nii.gz", mask, far),
        "cannot be read": written(tmp_path / "empty.nii.gz", np.zeros((5, 5, 5)), AFFINE),
        "give the same grid": mask,
        "marks no voxel": np.zeros((20, 24, 10)),
    }
    for words, roi in cases.items():
        with pytest.raises(BadInput, match=words) as caught:
            region_of_interest(roi, head())
        assert "\n" not in str(caught.value)


def test_words_and_files():
    assert parse_roi(None) == "auto"
    assert parse_roi(" Brain ") == "brain"
    with pytest.raises(BadInput, match="no region of interest"):
        parse_roi("nothing.nii")


def ball(spacing: tuple[float, float, float], radius: float, centre: float = 100.0) -> np.ndarray:
    """A ball in a cube of 200 mm."""
    axes = [(np.arange(round(200 / mm)) + 0.5) * mm - centre for mm in spacing]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 < radius**2


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.0, 1.0, 5.0), (3.0, 2.5, 7.0)])
def test_a_brain_with_a_hole_and_a_bite_is_whole_and_a_little_wider(spacing):
    seen = ball(spacing, 65)
    bitten = seen & ~ball(spacing, 8, 75) & ~ball(spacing, 12, 60)
    found = brain_region(bitten, np.ones_like(seen), spacing)
    assert not found.doubt
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * 6.5**3, rel=0.06)
    assert found.mask[seen].mean() > 0.99
    assert not found.mask[~ball(spacing, 65 + 6 + 2 * max(spacing))].any()


def test_only_what_is_shown_belongs_to_it():
    spacing = (2.0, 2.0, 2.0)
    head = ball(spacing, 66)
    assert not brain_region(ball(spacing, 65), head, spacing).mask[~head].any()


def test_what_is_no_brain_is_doubted():
    spacing = (2.0, 2.0, 2.0)
    whole = np.ones((100, 100, 100), bool)
    assert "mL" in brain_region(ball(spacing, 30), whole, spacing).doubt
    assert "mL" in brain_region(ball(spacing, 95), whole, spacing).doubt
    split = ball(spacing, 60)
    split[:, :, 44:56] = False
    assert "pieces" in brain_region(split, whole, spacing).doubt
    trunk = np.zeros((140, 100, 100), bool)
    trunk[10:130, 20:80, 40:60] = True  # of 240 x 120 x 40 mm, 1.2 L
    assert "240 mm" in brain_region(trunk, np.ones_like(trunk), spacing).doubt
    assert "width" in brain_region(trunk.swapaxes(0, 1), np.ones_like(trunk).swapaxes(0, 1), spacing).doubt
    tall = trunk.swapaxes(0, 2)  # with some of its cord below
    assert not brain_region(tall, np.ones_like(tall), spacing).doubt
    nothing = brain_region(np.zeros_like(whole), whole, spacing)
    assert nothing.doubt
    assert not nothing.mask.any()
