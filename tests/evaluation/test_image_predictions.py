"""Predictions of images: order, batches, framings, and what the cache spares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medzsad.datasets.images import read_image
from medzsad.datasets.samples import SampleSet
from medzsad.detectors.base import Prediction
from medzsad.detectors.references import Brightness
from medzsad.errors import BadInput
from medzsad.evaluation.image_predictions import predict_images
from medzsad.evaluation.prediction_cache import PredictionCache
from medzsad.predicting import predict


class Counting(Brightness):
    """Brightness that counts the images it is shown."""

    shown = 0

    def detect(self, inputs: torch.Tensor) -> Prediction:
        self.shown += len(inputs)
        return super().detect(inputs)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_whole_images_in_order_whatever_the_batch(
    blobs: SampleSet, brightness: Brightness, batch_size: int
) -> None:
    paths = [sample.image for sample in blobs]
    cache = PredictionCache(None, brightness, {})
    found = list(predict_images(brightness, paths, framing="whole", cache=cache, batch_size=batch_size))
    assert len(found) == len(paths)
    for path, one in zip(paths, found, strict=True):
        expected = brightness.predict_at_own_size(torch.from_numpy(read_image(path))[None])
        np.testing.assert_allclose(one.anomaly_map, expected.anomaly_map[0].numpy(), atol=1e-6)
        assert one.score == pytest.approx(float(expected.image_score[0]), abs=1e-6)


def test_foreground_is_what_predict_gives(blobs: SampleSet, brightness: Brightness) -> None:
    path = blobs[0].image
    cache = PredictionCache(None, brightness, {})
    (found,) = predict_images(brightness, [path], framing="foreground", cache=cache)
    result = predict(path, brightness)
    np.testing.assert_array_equal(found.anomaly_map, result.anomaly_map[:, :, 0].T)
    assert found.anomaly_map.shape == read_image(path).shape[1:]
    assert found.score == result.score


@pytest.mark.parametrize("framing", ["whole", "foreground"])
def test_a_second_run_computes_nothing(tmp_path: Path, blobs: SampleSet, framing: str) -> None:
    paths = [sample.image for sample in blobs]
    first, second = Counting().eval(), Counting().eval()
    runs = [
        list(
            predict_images(
                d, paths, framing=framing, cache=PredictionCache(tmp_path / "c", d, {}), batch_size=3
            )
        )
        for d in (first, second)
    ]
    assert (first.shown, second.shown) == (len(paths), 0)
    for one, again in zip(*runs, strict=True):
        assert np.array_equal(one.anomaly_map, again.anomaly_map)
        assert one.score == again.score


def test_unreadable_images_are_named(tmp_path: Path, brightness: Brightness) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"broken\.png"):
        list(predict_images(brightness, [path], framing="whole", cache=PredictionCache(None, brightness, {})))


def test_in_an_image_of_one_colour_nothing_is_found(tmp_path: Path, brightness: Brightness) -> None:
    path = tmp_path / "black.png"
    Image.fromarray(np.zeros((30, 50), np.uint8)).save(path)
    cache = PredictionCache(None, brightness, {})
    (found,) = predict_images(brightness, [path], framing="foreground", cache=cache)
    assert found.anomaly_map.shape == (30, 50)
    assert (found.anomaly_map.any(), found.score, found.probability) == (False, 0.0, 0.0)
