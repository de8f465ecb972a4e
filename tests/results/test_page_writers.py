from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image
from report_cases import make_picture, make_volume

from medzsad.results.prediction import FORMATS
from medzsad.results.segmentation_nrrd import RAS_TO_LPS


def test_further_formats(tmp_path):
    prediction = make_volume()
    files = prediction.save(tmp_path, formats=("html", "slices", "seg.nrrd"))
    assert set(files) == {"html", "slices", "seg.nrrd"}
    pictures = sorted(path.name for path in files["slices"].iterdir())
    assert 1 < len(pictures) <= 6
    axis = prediction.slice_scores[0].axis
    best = max(prediction.slice_scores, key=lambda score: (score.score, -score.index))
    assert f"turned_slice_axial_{best.index:03d}.png" in pictures
    assert axis == 1
    for path in files["slices"].iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 1280


def test_slices_of_an_earlier_run_are_replaced(tmp_path):
    (tmp_path / "turned_slices").mkdir()
    (tmp_path / "turned_slices" / "turned_slice_axial_999.png").write_bytes(b"old")
    make_volume().save(tmp_path, formats=("slices",))
    assert not (tmp_path / "turned_slices" / "turned_slice_axial_999.png").exists()
    assert list((tmp_path / "turned_slices").iterdir())


def test_images(tmp_path):
    files = make_picture().save(tmp_path, formats=(*FORMATS, "html", "slices", "seg.nrrd"))
    assert "seg.nrrd" not in files
    assert [path.name for path in files["slices"].iterdir()] == ["photo_slice_image.png"]


def test_the_segmentation_lies_where_the_mask_lies(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    prediction = make_volume()
    files = prediction.save(tmp_path, formats=("nifti", "seg.nrrd"))
    mask, header = nrrd.read(str(files["seg.nrrd"]))
    expected = nibabel.load(files["mask"])
    np.testing.assert_array_equal(mask, np.asarray(expected.dataobj))
    affine = np.eye(4)
    affine[:3, :3] = header["space directions"].T
    affine[:3, 3] = header["space origin"]
    assert header["space"] == "left-posterior-superior"
    np.testing.assert_allclose(RAS_TO_LPS @ affine, expected.affine, atol=1e-4)
    assert header["Segment0_Name"] == "anomaly candidate"
    assert header["Segment0_LabelValue"] == "1"
    first = [int(edge) for edge in header["Segment0_Extent"].split()]
    hits = np.argwhere(mask)
    assert first == [edge for axis in range(3) for edge in (hits[:, axis].min(), hits[:, axis].max())]


def test_an_empty_segmentation_is_complete(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    prediction = make_volume()
    prediction.anomaly_map[:] = 0
    mask, header = nrrd.read(str(prediction.save(tmp_path, formats=("seg.nrrd",))["seg.nrrd"]))
    assert mask.shape == prediction.scan.shape
    assert not mask.any()
    assert header["Segment0_Name"] == "anomaly candidate"
