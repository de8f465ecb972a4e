from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_results import regular_series
from orientations import all_orientations, reoriented

import medzsad
from medzsad.errors import BadInput, ModelNotReady
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality, Scan

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def detector():
    return medzsad.load_detector("medzsad-mini", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def small_detector():
    """Random weights: enough to compare maps with each other, and 200 predictions stay fast."""
    import torch

    from medzsad.detectors.mini.model import MedzsadMini

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MedzsadMini(image_size=64, network={"widths": (8, 16, 24, 32), "depth": 1, "heads": 2})


@pytest.fixture(scope="module")
def phantom(detector):
    return medzsad.predict(EXAMPLES / "head_phantom.nii.gz", detector)


def small_head(seed: int = 0) -> np.ndarray:
    """An asymmetric blob with a bright spot, (20, 24, 10)."""
    x, y, z = np.meshgrid(
        np.linspace(-1, 1, 20), np.linspace(-1, 1, 24), np.linspace(-1, 1, 10), indexing="ij"
    )
    head = (x**2 + (y * 0.9) ** 2 + z**2 < 0.8) * (300 + 60 * x)
    head += 250 * ((x - 0.3) ** 2 + (y + 0.2) ** 2 + z**2 < 0.05)
    return (head + np.random.default_rng(seed).normal(0, 5, head.shape)).astype(np.float32)


def as_scan(voxels: np.ndarray, affine: np.ndarray) -> Scan:
    return Scan(voxels, affine, Modality.MR, "given", "head", Path("head.nii.gz"))


def test_map_lies_in_the_scan_and_finds_the_lesion(phantom):
    lesion = nibabel.load(EXAMPLES / "head_phantom_lesion.nii.gz").get_fdata() > 0
    assert phantom.anomaly_map.shape == phantom.scan.shape == lesion.shape
    assert phantom.anomaly_map.dtype == np.float32
    assert 0 <= phantom.anomaly_map.min() <= phantom.anomaly_map.max() <= 1
    assert phantom.anomaly_map[lesion].mean() > 3 * phantom.anomaly_map[~lesion].mean()
    assert 0 < phantom.score <= 1
    center = np.argwhere(lesion).mean(axis=0)
    assert any(np.linalg.norm(np.subtract(found.center_voxel, center)) < 8 for found in phantom.lesions[:2])


@pytest.mark.parametrize(
    ("oblique", "spacing"),
    [
        pytest.param(True, (1.5, 1.5, 5.0), id="oblique-thick"),
        pytest.param(True, (2.0, 2.0, 2.0), id="oblique-isotropic", marks=pytest.mark.slow),
        pytest.param(False, (1.5, 1.5, 5.0), id="straight-thick", marks=pytest.mark.slow),
        pytest.param(False, (2.0, 2.0, 2.0), id="straight-isotropic", marks=pytest.mark.slow),
    ],
)
def test_all_48_orientations_give_the_same_map_in_world_space(small_detector, oblique, spacing):
    from scipy.spatial.transform import Rotation

    affine = np.diag([*spacing, 1.0])
    if oblique:
        affine[:3, :3] = Rotation.from_euler("xyz", [17, -12, 9], degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = (-19, 7, 33)
    voxels = small_head()
    reference = medzsad.predict(as_scan(voxels, affine), small_detector, threshold="p95")
    assert reference.lesions
    assert np.ptp(reference.anomaly_map[reference.anomaly_map > 0]) > 0.01
    for order, signs in all_orientations():
        stored, stored_affine = reoriented(voxels, affine, order, signs)
        result = medzsad.predict(as_scan(stored, stored_affine), small_detector, threshold="p95")
        expected, _ = reoriented(reference.anomaly_map, affine, order, signs)
        np.testing.assert_allclose(result.anomaly_map, expected, atol=1e-5)
        assert result.score == pytest.approx(reference.score, abs=1e-5)
        assert [lesion.volume_ml for lesion in result.lesions] == pytest.approx(
            [lesion.volume_ml for lesion in reference.lesions]
        )
        for ours, theirs in zip(result.lesions, reference.lesions, strict=True):
            assert ours.center_mm == pytest.approx(theirs.center_mm, abs=1e-3)


def test_all_planes_is_the_mean_of_the_three(detector):
    scan = as_scan(small_head(), np.diag([2.0, 2.0, 2.0, 1.0]))
    maps = [
        medzsad.predict(scan, detector, plane=plane).anomaly_map for plane in ("axial", "coronal", "sagittal")
    ]
    together = medzsad.predict(scan, detector, plane="all")
    np.testing.assert_allclose(together.anomaly_map, np.mean(maps, axis=0), atol=1e-6)
    assert {score.plane for score in together.slice_scores} == {"axial", "coronal", "sagittal"}


def test_threshold_rules(detector):
    scan = as_scan(small_head(), np.diag([2.0, 2.0, 2.0, 1.0]))
    percentile = medzsad.predict(scan, detector, threshold="p99")
    inside = percentile.anomaly_map > 0
    assert percentile.mask.sum() <= 0.02 * inside.sum() + 1
    assert medzsad.predict(scan, detector, threshold=0.3).threshold == 0.3
    assert medzsad.predict(scan, detector, threshold=0).mask.sum() == inside.sum()
    assert medzsad.predict(scan, detector).threshold_rule == str(detector.for_volume().threshold)
    with pytest.raises(BadInput, match="threshold"):
        medzsad.predict(scan, detector, threshold=7)


def test_options_of_loading_reach_the_detector():
    scan = as_scan(small_head(), np.eye(4))
    with pytest.raises(ModelNotReady, match="unknown backend 'abacus'"):
        medzsad.predict(scan, backend="abacus")
    with pytest.raises(ModelNotReady, match="its texts name no organ"):
        medzsad.predict(scan, organ="brain")
    with pytest.raises(ModelNotReady, match="unknown precision 'int3'"):
        medzsad.predict(scan, precision="int3")


def test_saved_files_have_the_scan_s_geometry(phantom, tmp_path):
    files = phantom.save(tmp_path)
    source = nibabel.load(EXAMPLES / "head_phantom.nii.gz")
    for kind, dtype in (("anomaly", np.float32), ("mask", np.uint8)):
        image = nibabel.load(files[kind])
        assert image.shape == source.shape
        assert image.get_data_dtype() == dtype
        np.testing.assert_array_equal(image.affine, source.affine)
        assert image.header.get_xyzt_units() == source.header.get_xyzt_units()
    report = json.loads(files["json"].read_text())
    assert report["score"] == pytest.approx(phantom.score, abs=1e-5)
    assert len(report["lesions"]) == len(phantom.lesions)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in files.values()}


def test_foreground_scaling_and_candidates_are_computed_once(small_detector, tmp_path):
    """Whatever is written: the code that runs is counted, from wherever it is called."""
    pytest.importorskip("highdicom")
    from medzsad.results.html.index import thumbnail
    from medzsad.results.writing import ALL_FORMATS

    calls: Counter[str] = Counter()

    def count(frame, event, _):
        name = frame.f_code.co_name
        if event == "call" and name in ("foreground_mask", "intensity_scaling", "find_lesions"):
            calls[name] += 1
        if event == "call" and name == "label" and "scipy" in frame.f_code.co_filename:
            calls["label of a volume"] += "input" in frame.f_locals and frame.f_locals["input"].ndim == 3

    scan = read_scan(regular_series(tmp_path / "series"))
    sys.setprofile(count)
    try:
        result = medzsad.predict(scan, small_detector, threshold="p95")
        result.save(tmp_path / "out", formats=tuple(name for name in ALL_FORMATS if name != "brain"))
        thumbnail(result)
        result._repr_html_()
    finally:
        sys.setprofile(None)
    # The foreground labels its bodies, and the prediction its candidates.
    assert calls == {
        "foreground_mask": 1, "intensity_scaling": 1, "find_lesions": 1, "label of a volume": 2,
    }  # fmt: skip


def voxel_auroc(anomaly_map: np.ndarray, label: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(label.ravel(), anomaly_map.ravel())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["pat0001", "pat0003", "pat0005"])
def test_brats_flair(shared, tmp_path, case):
    folder = shared(f"data/brats2013/{case}", files=5)
    source = nibabel.load(folder / "Flair_subtrMeanDivStd.nii.gz")
    result = medzsad.predict(folder / "Flair_subtrMeanDivStd.nii.gz")
    saved = nibabel.load(result.save(tmp_path, formats=("nifti",))["anomaly"])
    assert saved.shape == source.shape
    np.testing.assert_array_equal(saved.affine, source.affine)
    assert saved.header.get_xyzt_units() == source.header.get_xyzt_units()
    label = np.asarray(nibabel.load(folder / "OTMultiClass.nii.gz").dataobj) > 0
    assert voxel_auroc(saved.get_fdata(dtype=np.float32), label) >= 0.90


@pytest.mark.slow
def test_tilted_head_ct_predicts_with_a_warning(shared, tmp_path):
    folder = shared("data/dicom_head_ct", files=28)
    result = medzsad.predict(folder)
    assert any("tilt" in note for note in result.scan.notes)
    assert "geometry" in result.scan.details
    affine = nibabel.load(result.save(tmp_path)["anomaly"]).affine
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)


@pytest.mark.slow
def test_brain_mr_series_is_sliced_as_acquired(shared):
    folder = shared("data/dicom_brain_mr", files=64)
    result = medzsad.predict(folder)
    assert result.planes == ("sagittal",)
    assert result.scan.modality is Modality.MR
    assert 0 < len(result.slice_scores) <= 64
