from __future__ import annotations

import numpy as np
from monai.inferers import Inferer

from medzsad.detectors.references import Brightness
from medzsad.inference.inferer import SliceWiseInferer
from medzsad.inference.slicewise import SliceWisePredictor
from medzsad.scans.slices import Plane


def test_monai_s_inferer_gives_the_same_map() -> None:
    volume = np.random.default_rng(0).random((12, 10, 4), dtype=np.float32)
    inferer = SliceWiseInferer(Plane.CORONAL, (1.0, 1.0, 2.0), batch_size=3)
    assert isinstance(inferer, Inferer)
    found = inferer(volume, Brightness())
    expected = SliceWisePredictor(Plane.CORONAL, (1.0, 1.0, 2.0))(volume, Brightness())
    assert found.indices == expected.indices == list(range(10))
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-6)
