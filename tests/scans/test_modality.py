"""Modalities, said or guessed."""

from __future__ import annotations

import numpy as np
import pytest

from medzsad.errors import BadInput
from medzsad.scans.modality import guess_modality, hu_note, parse_modality
from medzsad.scans.scan import Modality


def test_words() -> None:
    assert parse_modality(None) is None
    assert parse_modality(" CT") is Modality.CT
    assert parse_modality(Modality.US) is Modality.US
    with pytest.raises(BadInput, match="`modality` t1"):
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


def head(shift: float = 0.0) -> np.ndarray:
    """Air, tissue and bone of a head CT, with a detector's noise."""
    rng = np.random.default_rng(0)
    voxels = np.full((16, 16, 8), -1000.0)
    voxels[4:12, 4:12] = 40
    voxels[4:5, 4:12] = 1000
    return (voxels + rng.normal(0, 5, voxels.shape) + shift).astype(np.float32)


def test_values_that_are_no_hu_are_said() -> None:
    assert hu_note(head()) is None
    assert "may not be HU" in hu_note(head(1024).clip(0))
    assert "may not be HU" in hu_note(head(1000))  # noise falls below 0
    padded = head(1000)
    padded[:, :, 0] = -2000
    assert "may not be HU" in hu_note(padded)
    padded = head()
    padded[:, :, 0] = -2000
    assert hu_note(padded) is None
    inside = head()[4:11, 5:11]  # no air, and bone
    assert "may not be HU" in hu_note(inside)  # nothing tells it from a shifted one
    inside[3, 3, 3] = -60  # a little fat does
    assert hu_note(inside[1:]) is None
