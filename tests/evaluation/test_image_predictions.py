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
from medzsad.evaluation.image_predictions import is_shown_grey, predict_images
from medzsad.evaluation.prediction_cache import PredictionCache
from medzsad.predicting import predict
from medzsad.zoo.loading import load_detector


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


@pytest.mark.parametrize("framing", ["whole", "foreground"])
def test_images_of_radiology_go_to_the_grey_network_whatever_their_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    mini = load_detector("medzsad-mini", device="cpu", precision="fp32")
    rng = np.random.default_rng(0)
    grey = rng.integers(60, 200, (48, 48, 1)).astype(np.uint8).repeat(3, 2)
    tinted, marked = grey.copy(), grey.copy()
    tinted[..., 0] += 1  # as JPEG compression leaves it
    marked[8:40, 8:40] = (250, 30, 30)
    paths = []
    for name, pixels in (("tinted", tinted), ("marked", marked)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        paths.append(tmp_path / f"{name}.png")
    networks: list[str] = []
    detect = mini._detect
    monkeypatch.setattr(mini, "_detect", lambda n, x, kind: networks.append(kind) or detect(n, x, kind))

    def run(dataset: str) -> list[float]:
        networks.clear()
        shown = is_shown_grey(mini, dataset)
        cache = PredictionCache(None, mini, {})
        return [one.score for one in predict_images(mini, paths, framing=framing, cache=cache, grey=shown)]

    own = run("folder")
    assert networks == ["grey", "colour"]  # of one's own images only the channels tell
    assert run("kvasir") == own
    found = run("brainmri")
    assert networks == ["grey", "grey"]
    assert found[0] == own[0]  # the number that predict gives
    assert found[1] != own[1]
    assert not is_shown_grey(Brightness(), "brainmri")
