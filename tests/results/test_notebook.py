from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import medzsad
from medzsad.detectors.references import Brightness


def predicted(name: str = "case"):
    voxels = np.random.default_rng(0).normal(100, 5, (24, 24, 6)).astype(np.float32)
    voxels[4:12, 6:12, 2:5] = 400
    return medzsad.predict(voxels, Brightness(), affine=np.diag([2.0, 2, 4, 1]), name=name, modality="mr")


def test_a_notebook_sees_the_picture_and_the_candidates() -> None:
    result = predicted()
    page = result._repr_html_()
    data = re.search(r'src="data:image/png;base64,([^"]+)"', page)[1]
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.width <= 1200
    assert np.asarray(picture).std() > 5
    assert len(result.lesions) >= 1
    assert page.count("<tr tabindex") == min(10, len(result.lesions))
    assert not re.search(r"https?://|<script", page)


def test_names_are_escaped_and_folders_do_not_appear() -> None:
    result = predicted("<b>&bold")
    result = replace(result, scan=replace(result.scan, source=Path("/data/Jane_Doe/a.nii")))
    page = result._repr_html_()
    assert "<b>&bold" not in page
    assert "&lt;b&gt;&amp;bold" in page
    assert "Jane" not in page


def test_a_result_and_a_scan_are_one_line() -> None:
    result = predicted()
    for line in (repr(result), repr(result.scan)):
        assert "\n" not in line
        assert "24 x 24 x 6" in line
        assert len(line) < 120
