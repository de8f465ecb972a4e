"""medzsad-mini's graphs on a real image and on slices of a real volume, through ``predict``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from shared_data import Shared

from medzsad.predicting import predict
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Scan
from medzsad.zoo.loading import load_detector

SOURCES = {"image": "br35h_mini/yes/y101.jpg", "volume": "brats2013/pat0001/Flair_subtrMeanDivStd.nii.gz"}
CLOSE = 2e-5  # the bounds are 1e-2 for maps and 1e-3 for scores; float32 is far within them


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDZSAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def scans(shared: Shared) -> dict[str, Scan]:
    found = {kind: read_scan(shared(f"data/{source}")) for kind, source in SOURCES.items()}
    volume = found["volume"]
    middle = volume.voxels.shape[2] // 2
    return {**found, "volume": replace(volume, voxels=volume.voxels[:, :, middle - 2 : middle + 3])}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_maps_and_scores_are_those_of_pytorch(backend: str, scans: dict[str, Scan]) -> None:
    for package in ("openvino", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    torch_detector = load_detector("medzsad-mini", device="cpu", precision="fp32")
    detector = load_detector("medzsad-mini", device="cpu", backend=backend)
    for kind, scan in scans.items():
        # The rules for volumes order voxels by value: where few have one, a small difference grows.
        for rules, close in (("off", CLOSE), ("auto", CLOSE if kind == "image" else 10 * CLOSE)):
            expected, found = (predict(scan, each, volume_rules=rules) for each in (torch_detector, detector))
            assert expected.anomaly_map.max() > 0.1, kind
            assert np.abs(found.anomaly_map - expected.anomaly_map).max() <= close, (kind, rules)
            assert len(found.slice_scores) == len(expected.slice_scores) > 0
            for one, other in zip(found.slice_scores, expected.slice_scores, strict=True):
                assert abs(one.score - other.score) <= CLOSE, (kind, rules)
            assert found.settings["detector"]["backend"] == backend
            assert found.settings["detector"]["image_size"] == (144 if kind == "image" else 192)
