from __future__ import annotations

import pytest

from medzsad.detectors.references import Brightness
from medzsad.errors import BadInput
from medzsad.monai import fixed_threshold


def test_a_threshold_that_depends_on_the_scan_is_no_fixed_one() -> None:
    detector = Brightness()
    assert fixed_threshold(None, detector) == 0.5
    assert fixed_threshold(0.25, detector) == 0.25
    assert fixed_threshold("p99", detector) is None
    detector.threshold = "otsu"
    assert fixed_threshold(None, detector) is None
    with pytest.raises(BadInput):
        fixed_threshold("high", detector)
