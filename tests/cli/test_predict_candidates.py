"""Options about candidates, rules for volumes and the region of interest."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
BAD = {
    "number": ["--max-candidates", "0"],
    "volume": ["--min-volume", "-1"],
    "both": ["--all-candidates", "--min-volume", "1"],
    "rules": ["--volume-rules", "maybe"],
    "region": ["--roi", "nowhere.nii.gz"],
    "brain": ["--roi", "brain", "--plane", "sideways"],
}


@pytest.mark.parametrize("options", BAD.values(), ids=BAD)
def test_bad_values_are_refused_in_one_line(options, medzsad, tmp_path):
    code, out, err = medzsad(
        "predict", EXAMPLES / "head_phantom.nii.gz", "-o", tmp_path / "out", "-q", *options
    )
    assert code == 2
    assert not out
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_region_on_another_grid_limits_map_mask_and_report(medzsad, tmp_path):
    phantom = nibabel.load(EXAMPLES / "head_phantom.nii.gz")
    cut = nibabel.Nifti1Image(np.asarray(phantom.dataobj)[:, :, 28:36], phantom.affine @ _shift(28))
    nibabel.save(cut, tmp_path / "head.nii.gz")
    roi = nibabel.load(EXAMPLES / "head_phantom_lesion.nii.gz")
    nibabel.save(roi, tmp_path / "roi.nii.gz")
    code, _, err = medzsad(
        "predict", tmp_path / "head.nii.gz", "-o", tmp_path / "out", "-q", "--roi", tmp_path / "roi.nii.gz",
        "--max-candidates", "1",
    )  # fmt: skip
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "head.json").read_text())
    assert report["settings"]["roi"] == "mask"
    assert report["candidate_rules"]["max_candidates"] == 1
    assert len(report["lesions"]) == 1
    anomaly_map = nibabel.load(tmp_path / "out" / "head_anomaly.nii.gz").get_fdata()
    outside = np.asarray(roi.dataobj)[:, :, 28:36] == 0
    assert anomaly_map.any()
    assert not anomaly_map[outside].any()


def test_a_first_pass_is_an_option_whose_size_must_suit_the_model(medzsad, tmp_path):
    scan = EXAMPLES / "head_phantom.nii.gz"
    options = ("predict", scan, "-o", tmp_path / "out", "-q", "--overlay", "none", "--first-pass")
    code, _, err = medzsad(*options, "96")
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "head_phantom.json").read_text())
    assert report["settings"]["first_pass"] == 96
    assert len(report["lesions"]) == 1
    for side, said in (("97", "a multiple of 16 pixels below 192"), ("5000", "from "), ("-16", "from ")):
        code, _, err = medzsad(*options, side, "--fresh")
        assert code == 2
        assert f"--first-pass {side}" in err
        assert said in err
        assert len(err.strip().splitlines()) == 1
    code, _, err = medzsad(*options, "96", "--backend", "openvino")
    assert code == 2
    assert "--first-pass does not go with --backend" in err


def _shift(slices: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[2, 3] = slices
    return matrix
