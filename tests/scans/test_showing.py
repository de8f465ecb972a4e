"""Which network sees a scan is decided by what the scan is, whatever windows it is seen through."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import medzsad
from medzsad.scans.intensity import WINDOWS, intensity_scaling
from medzsad.scans.scan import Modality, Scan
from medzsad.scans.showing import as_shown, kind_of


def scan_of(modality: Modality, *, colour: bool = False, flat: bool = False) -> Scan:
    shape = (24, 20, 1 if flat else 3)
    values = np.random.default_rng(0).uniform(-200, 1200, (*shape, 3) if colour else shape)
    if colour:
        values = values.clip(0, 255)
    where = {"source": Path("x"), "name": "x", "is_2d": flat}
    return Scan(values.astype(np.float32), np.eye(4), modality, "given", **where)


PAIRS = ["+".join(pair) for pair in itertools.permutations(WINDOWS, 2)]
SEVERAL = [*PAIRS, "brain+subdural+bone", "40,80+600,2800"]


@pytest.mark.parametrize("window", [*WINDOWS, *SEVERAL])
@pytest.mark.parametrize("flat", [False, True])
def test_a_ct_is_grey_through_any_windows(window: str, flat: bool) -> None:
    ct = scan_of(Modality.CT, flat=flat)
    shown = as_shown(ct, intensity_scaling(ct, window))(ct.voxels)
    first = intensity_scaling(ct, window.split("+")[0])(ct.voxels)
    np.testing.assert_array_equal(shown, first)
    assert kind_of(ct) == "grey"


@pytest.mark.parametrize("modality", [m for m in Modality if m not in (Modality.RGB, Modality.CT)])
def test_radiology_is_grey_even_with_colours_in_it(modality: Modality) -> None:
    scan = scan_of(modality, colour=True)
    shown = as_shown(scan, intensity_scaling(scan))(scan.voxels)
    assert kind_of(scan) == "grey"
    np.testing.assert_array_equal(shown[0], shown[2])


def test_photographs_keep_their_colours() -> None:
    photo = scan_of(Modality.RGB, colour=True, flat=True)
    scaling = intensity_scaling(photo)
    assert kind_of(photo) == "colour"
    assert as_shown(photo, scaling) is scaling


@pytest.mark.parametrize("flat", [False, True])
def test_the_embedded_detector_says_what_it_saw(flat: bool) -> None:
    ct = scan_of(Modality.CT, flat=flat)
    detector = medzsad.load_detector("medzsad-mini", device="cpu")
    several = medzsad.predict(ct, detector, window="brain+subdural+bone")
    one = medzsad.predict(ct, detector, window="brain")
    np.testing.assert_array_equal(several.anomaly_map, one.anomaly_map)
    assert several.settings["shown_as"] == "grey"
    assert any("only the first of brain+subdural+bone" in note for note in several.scan.notes)
    assert not any("only the first" in note for note in one.scan.notes)
