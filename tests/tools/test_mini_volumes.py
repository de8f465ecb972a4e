"""The bench of volumes: what counts as found, and what as false."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from medzsad.results.prediction import ScanPrediction
from medzsad.scans.foreground import foreground_mask
from medzsad.scans.intensity import intensity_scaling
from medzsad.scans.readers import read_scan
from medzsad.scans.slices import Plane

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS / "bench"))
    return importlib.import_module("mini_volumes")


def predicted(path: Path, anomaly_map: np.ndarray) -> ScanPrediction:
    scan = read_scan(path)
    scaling = intensity_scaling(scan, foreground=foreground_mask(scan))
    return ScanPrediction(scan, anomaly_map.astype(np.float32), 0.5, [], 0.5, "0.5", (Plane.AXIAL,), scaling)


def test_figures_of_a_volume(bench: ModuleType, tmp_path: Path) -> None:
    brain, label = np.zeros((24, 24, 24), np.uint8), np.zeros((24, 24, 24), np.uint8)
    brain[4:20, 4:20, 4:20] = 1
    label[6:9, 6:9, 6:9] = label[14:18, 14:18, 14:18] = 1
    label[10, 10, 6] = 1  # 1 mm3: too small to count
    grey = 50.0 * brain + 40 * label + np.random.default_rng(0).normal(0, 1, label.shape)
    for name, array in (("scan", grey), ("label", label), ("brain", brain)):
        nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
    case = bench.Case("case", *(tmp_path / f"{name}.nii.gz" for name in ("scan", "label", "brain")))

    exact = bench.judge(case, predicted(case.image, 0.9 * label))
    assert (exact["ap"], exact["dice"], exact["dice_best"]) == (1, 1, 1)
    assert (exact["lesions"], exact["found"], exact["false"]) == (2, 2, 0)
    assert exact["ap_brain"] == 1
    assert exact["brightness_brain"] >= exact["brightness"] > 0.2

    # One candidate over the whole brain touches every lesion, and finds none.
    whole = bench.judge(case, predicted(case.image, 0.9 * brain))
    assert (whole["candidates"], whole["found"], whole["false"]) == (1, 0, 0)
    assert whole["ap"] < 0.1

    beside = np.zeros(label.shape)
    beside[6:9, 6:9, 6:9], beside[0:3, 20:24, 0:4] = 0.8, 0.9
    half = bench.judge(case, predicted(case.image, beside))
    assert (half["found"], half["false"]) == (1, 1)
    assert half["ap_brain"] > half["ap"]

    healthy = bench.judge(case._replace(label=None), predicted(case.image, beside))
    assert healthy["candidates"] == 2
    assert healthy["marked_ml"] == pytest.approx(0.075)
