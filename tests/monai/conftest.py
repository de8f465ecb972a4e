from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medzsad.detectors.mini.model import MedzsadMini

# Makes made_scans, dicom_factory and test_slices importable: tests are collected without ``sys.path``.
sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "scans")]

from made_scans import AFFINE, small_head


@pytest.fixture(scope="session")
def detector() -> MedzsadMini:
    """Random weights: enough to compare maps, for these depend on orientation, scale and neighbours."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MedzsadMini(image_size=64, network={"widths": (8, 16, 24, 32), "depth": 1, "heads": 2}).eval()


@pytest.fixture
def heads(tmp_path: Path) -> list[Path]:
    """Two volumes of different shape, spacing and orientation."""
    paths = [tmp_path / "first.nii.gz", tmp_path / "second.nii.gz"]
    nibabel.save(nibabel.Nifti1Image(small_head(), AFFINE), paths[0])
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(small_head((16, 14, 8), seed=1), affine), paths[1])
    return paths
