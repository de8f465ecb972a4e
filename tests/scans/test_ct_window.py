"""The window that a CT gets by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shared_data import Shared

from medzsad.scans.ct_window import WINDOW_OF_BODY_PART, default_window
from medzsad.scans.intensity import WINDOWS
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality, Scan


def test_every_default_is_a_window() -> None:
    assert set(WINDOW_OF_BODY_PART.values()) <= set(WINDOWS)


def ct(inside: dict[str, float], step: float = 4.0) -> Scan:
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
    assert default_window(ct(inside, step)) == (window, "chosen from the values")


def test_body_part_decides_first() -> None:
    scan = replace(ct({"lung": 0.4}), details={"body_part": "ABDOMEN"})
    assert default_window(scan) == ("abdomen", "for DICOM body part ABDOMEN")


def test_real_scans(shared: Shared) -> None:
    head = read_scan(shared("data/dicom_head_ct", files=28))
    assert default_window(head)[0] == "brain"
    assert default_window(replace(head, details={}))[0] == "brain"
    body = read_scan(shared("data/body_ct_small/tests/reference_files/example_ct_sm.nii.gz"))
    assert default_window(body)[0] == "abdomen"
