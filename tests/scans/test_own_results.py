"""medzsad's own results among files."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medzsad.errors import BadInput
from medzsad.results.map_files import write_anomaly_png, write_volume
from medzsad.scans.find import find_scans
from medzsad.scans.own_results import SCAN, is_result, mark_of, may_be_replaced
from medzsad.scans.readers import read_scan

VOXELS = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)


@pytest.fixture
def scan_path(tmp_path: Path) -> Path:
    nibabel.Nifti1Image(VOXELS, np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


@pytest.mark.parametrize("name", ["a_anomaly.nii.gz", "renamed.nii.gz", "plain.nii"])
def test_maps_are_no_scans_whatever_they_are_called(scan_path: Path, name: str) -> None:
    result = scan_path.with_name(name)
    write_volume(VOXELS, read_scan(scan_path), result, what="anomaly map", fingerprint="0a1b2c")
    assert mark_of(result) == ("0a1b2c", "anomaly map")
    assert find_scans(scan_path.parent) == [scan_path]
    with pytest.raises(BadInput, match="result of medzsad"):
        find_scans(result)


def test_pictures_are_no_scans(scan_path: Path) -> None:
    write_anomaly_png(VOXELS[:, :, :1], scan_path.with_name("b_anomaly.png"))
    folder = scan_path.with_name("a_slices")
    folder.mkdir()
    write_anomaly_png(VOXELS[:, :, :1], folder / "x.png")
    assert find_scans(scan_path.parent) == [scan_path]
    Image.fromarray((VOXELS[:, :, 0] * 255).astype(np.uint8)).save(folder / "photograph.png")
    assert not may_be_replaced(folder)
    assert find_scans(scan_path.parent) == [scan_path, folder / "photograph.png"]


def test_a_saved_scan_is_found_by_name_only(scan_path: Path) -> None:
    saved = scan_path.with_name("a_scan.nii.gz")
    write_volume(VOXELS, read_scan(scan_path), saved, what=SCAN)
    assert find_scans(scan_path.parent) == [scan_path]
    assert find_scans(saved) == [saved]


def test_results_of_older_versions_are_known_by_their_report(scan_path: Path) -> None:
    label = scan_path.with_name("a_mask.nii.gz")
    nibabel.Nifti1Image(VOXELS, np.eye(4)).to_filename(label)
    assert not is_result(label)
    scan_path.with_name("a.json").write_text(json.dumps({"EchoTime": 3}))  # BIDS, say
    assert find_scans(scan_path.parent) == [scan_path, label]
    scan_path.with_name("a.json").write_text(json.dumps({"mask_labels": {}, "slices": []}))
    assert is_result(label)
    assert may_be_replaced(label)
    assert find_scans(scan_path.parent) == [scan_path]


def test_a_corrected_mask_is_a_result_but_not_replaced(scan_path: Path) -> None:
    report = {"result": "medzsad result 0a1b: report", "mask_labels": {}, "slices": []}
    scan_path.with_name("a.json").write_text(json.dumps(report))
    label = scan_path.with_name("a_mask.nii.gz")
    nibabel.Nifti1Image(VOXELS, np.eye(4)).to_filename(label)
    assert is_result(label)
    assert not may_be_replaced(label)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bbroken", b"{" * 100_000])
def test_damaged_files_are_no_results(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a_mask.nii.gz").write_bytes(content)
    (tmp_path / "a.json").write_bytes(content)
    assert not is_result(tmp_path / "a_mask.nii.gz")
