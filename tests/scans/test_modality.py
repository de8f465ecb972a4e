"""Modalities, said or guessed."""

from __future__ import annotations

import numpy as np
import pytest

from medzsad.errors import BadInput
from medzsad.scans.modality import guess_modality, parse_modality
from medzsad.scans.scan import Modality


def test_words() -> None:
    assert parse_modality(None) is None
    assert parse_modality(" CT") is Modality.CT
    assert parse_modality(Modality.US) is Modality.US
    with pytest.raises(BadInput, match="--modality t1"):
        parse_modality("t1")


def phantom(air: float, tissue: float, share: float = 0.3) -> np.ndarray:
    voxels = np.full((20, 20, 20), air, np.float32)
    voxels[: round(20 * share)] = tissue
    return voxels + np.random.default_rng(0).normal(0, 20, voxels.shape).astype(np.float32)


def test_guesses() -> None:
    ct = phantom(-1000, 40)
    ct[0, 0, 0] = 900
    assert guess_modality(ct) is Modality.CT
    ct[:, 15:] = -3024  # padding outside the field of view
    assert guess_modality(ct) is Modality.CT
    assert guess_modality(phantom(0, 400)) is Modality.MR
    assert guess_modality(phantom(-3, 1)) is Modality.MR
    assert guess_modality(np.zeros((2, 2, 2, 3))) is Modality.RGB
