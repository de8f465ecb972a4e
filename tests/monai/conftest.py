from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from made_scans import AFFINE, small_head

from medzsad.detectors.mini.model import MedzsadMini


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
