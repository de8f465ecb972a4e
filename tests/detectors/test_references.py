"""The trivial references: right where the answer is plain, and as good as such references are known to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared_data import Shared
from sklearn.metrics import roc_auc_score
from torch import Tensor

from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.references import Asymmetry, Brightness, Darkness, Reference
from medzsad.detectors.registry import detector_class
from medzsad.errors import ModelNotReady

KINDS = (Brightness, Darkness, Asymmetry)


def blob(row: int, column: int, value: float) -> Tensor:
    image = torch.full((1, 3, 64, 64), 0.5)
    image[..., row - 4 : row + 4, column - 4 : column + 4] = value
    return image


def peak(maps: Tensor) -> tuple[int, int]:
    index = int(maps[0].argmax())
    return index // maps.shape[-1], index % maps.shape[-1]


@pytest.mark.parametrize(("kind", "value"), [(Brightness, 0.9), (Darkness, 0.2)])
def test_the_map_peaks_in_the_blob_and_ignores_the_other_polarity(
    kind: type[Reference], value: float
) -> None:
    detector = kind().eval()
    row, column = peak(detector(blob(20, 40, value)).anomaly_map)
    assert abs(row - 20) <= 4  # the blob's half side
    assert abs(column - 40) <= 4
    other = detector(blob(20, 40, 1 - value)).anomaly_map[0]
    assert float(other[20, 40] - other.min()) < 1e-3


def test_asymmetry_marks_both_sides_and_nothing_in_a_symmetric_image() -> None:
    detector = Asymmetry().eval()
    maps = detector(blob(20, 12, 0.9)).anomaly_map[0]
    torch.testing.assert_close(maps, maps.flip(-1))
    assert maps[20, 12] > 10 * maps[50, 30]
    symmetric = torch.maximum(blob(20, 12, 0.9), blob(20, 52, 0.9))
    assert float(detector(symmetric).image_score) < 1e-3 < float(detector(blob(20, 12, 0.9)).image_score)


@pytest.mark.parametrize("kind", KINDS)
def test_contrast_does_not_matter_when_standardised_and_does_in_volumes(kind: type[Reference]) -> None:
    image = blob(20, 40, 0.9)
    faint = 0.3 + 0.4 * image
    single, volume = kind().eval(), kind().eval().for_volume()
    torch.testing.assert_close(single(image).anomaly_map, single(faint).anomaly_map, atol=1e-4, rtol=0)
    assert (volume(image).anomaly_map - volume(faint).anomaly_map).abs().max() > 0.05
    assert volume.settings["standardise"] is False


def test_the_black_around_a_scan_is_no_dark_lesion() -> None:
    scan = torch.zeros(1, 3, 64, 64)
    scan[..., 12:52, 12:52] = 0.5
    lesion = scan.clone()
    lesion[..., 28:36, 28:36] = 0.2
    detector = Darkness().eval().for_volume()
    assert float(detector(lesion).image_score) > float(detector(scan).image_score)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_and_settings(kind: type[Reference], tmp_path: Path) -> None:
    detector = kind(smoothing_sigma=1.0)
    save_checkpoint(detector.to_checkpoint(), tmp_path / "r.safetensors")
    loaded = kind.from_checkpoint(read_checkpoint(tmp_path / "r.safetensors"))
    image = blob(20, 40, 0.9)
    assert torch.equal(loaded(image).anomaly_map, detector(image).anomaly_map)
    assert loaded.settings == detector.settings
    assert detector_class(kind.method) is kind
    with pytest.raises(ModelNotReady, match="no weights"):
        kind.assemble({}, organ="brain")
    with pytest.raises(ModelNotReady, match="colour"):
        kind.assemble({"colour": 1})
    with pytest.raises(ModelNotReady, match="negative"):
        kind(smoothing_sigma=-1.0)


def test_asymmetry_reaches_its_known_figure_on_brain_mri(shared: Shared) -> None:
    folder = shared("data/brainmri/brain_tumor_dataset", files=253)
    detector = Asymmetry().eval()
    labels, scores = [], []
    for label, name in enumerate(("no", "yes")):
        for path in sorted((folder / name).iterdir()):
            pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255
            scores.append(float(detector(torch.from_numpy(pixels).permute(2, 0, 1)[None]).image_score))
            labels.append(label)
    assert abs(roc_auc_score(labels, scores) - 0.861) < 0.005
