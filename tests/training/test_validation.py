"""What validation counts, and what it knows before a training begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.errors import BadInput
from medzsad.training.recipe import DataSource
from medzsad.training.sources import OpenedSource, open_source
from medzsad.training.synthetic_set import make_synthetic_set
from medzsad.training.training_set import InputFormat
from medzsad.training.validation import Validator, check_metric

SIDE = 32


class Brightness(AnomalyDetector):
    """The first channel is the map."""

    method = "brightness"

    def __init__(self) -> None:
        super().__init__(image_size=SIDE, mean=(0, 0, 0), std=(1, 1, 1))

    def detect(self, inputs: torch.Tensor) -> Prediction:
        score = inputs[:, 0].mean((1, 2))
        return Prediction(inputs[:, 0], score, score)

    def to_checkpoint(self):
        raise NotImplementedError

    @classmethod
    def from_checkpoint(cls, checkpoint, *, clip_weights=None):
        raise NotImplementedError


def opened(root: Path, folder: Path, **kind: object) -> OpenedSource:
    return open_source(DataSource("mvtec", root=str(root), **kind), folder, side=SIDE)


def figures(source: OpenedSource) -> dict[str, float | None]:
    detector = Brightness()
    (found,) = Validator([source], InputFormat.of(detector))(detector).values()
    return found


def test_an_anomalous_image_without_a_mask_counts_for_its_label_alone(tmp_path: Path) -> None:
    root = make_synthetic_set(tmp_path / "images", 32)
    complete = figures(opened(root, tmp_path, classes=("grain",)))
    masks = sorted((root / "grain" / "ground_truth" / "blob").iterdir())
    image = root / "grain" / "test" / "blob" / masks[0].name.replace("_mask", "")
    masks[0].unlink()
    without_mask = figures(opened(root, tmp_path, classes=("grain",)))
    image.unlink()
    without_image = figures(opened(root, tmp_path, classes=("grain",)))
    assert without_mask["image_auroc"] == complete["image_auroc"]
    for name in ("pixel_auroc", "pixel_ap", "pixel_aupro"):
        assert without_mask[name] == without_image[name] != complete[name]


def test_a_metric_is_checked_by_the_labels(tmp_path: Path) -> None:
    root = make_synthetic_set(tmp_path / "images", 8)
    both = opened(root, tmp_path)
    check_metric([both], "mad")
    normal = OpenedSource(
        both.source, both.name, "", "", "", "pixel", tuple(s for s in both.samples if not s.label)
    )
    anomalous = OpenedSource(
        both.source, both.name, "", "", "", "pixel", tuple(s for s in both.samples if s.label)
    )
    for source, metric, fits in (
        (normal, "mad", False),
        (normal, "pixel_ap", False),
        (anomalous, "image_auroc", False),
        (anomalous, "pixel_mad", True),
        (anomalous, "mad", True),
    ):
        if fits:
            check_metric([source], metric)
            assert figures(source)["pixel_mad"] is not None
        else:
            with pytest.raises(BadInput, match=f"validation.metric {metric} is undefined on mvtec"):
                check_metric([source], metric)


def test_a_set_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDZSAD_DATA", raising=False)
    with pytest.raises(BadInput, match=r"where is visa\? give its folder with `data` visa=DIR"):
        open_source(DataSource("visa"), tmp_path, side=SIDE)
