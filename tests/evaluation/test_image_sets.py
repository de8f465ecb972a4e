"""Predictions and figures of 2D images, in both framings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mini_cases import detector_of_slices
from PIL import Image
from sklearn.metrics import roc_auc_score

from medzsad.datasets.images import read_image
from medzsad.datasets.opening import open_dataset
from medzsad.datasets.samples import SampleSet
from medzsad.detectors.base import Prediction
from medzsad.detectors.references import Brightness
from medzsad.errors import BadInput
from medzsad.evaluation.cache import PredictionCache
from medzsad.evaluation.image_sets import (
    evaluate_images,
    is_shown_grey,
    modality_of,
    on_grid,
    predict_images,
    threshold_for,
)
from medzsad.evaluation.settings import EvaluationSettings
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
        found = predict_images(
            mini, paths, framing=framing, cache=cache, grey=shown, modality=modality_of(dataset)
        )
        return [one.score for one in found]

    own = run("folder")
    assert networks == ["grey", "colour"]  # of one's own images only the channels tell
    photographs = run("kvasir")
    assert networks == ["colour", "colour"]  # known to be photographs, whatever their channels
    assert photographs[1] == own[1]
    found = run("brainmri")
    assert networks == ["grey", "grey"]
    assert found[0] == own[0]  # the number that predict gives
    assert found[1] != own[1]
    assert not is_shown_grey(Brightness(), "brainmri")


SETTINGS = EvaluationSettings(size=None, resamples=50)


def run(samples: SampleSet, detector: Brightness, settings: EvaluationSettings = SETTINGS, **options):
    cache = PredictionCache(None, detector, {})
    options = {"framing": "whole", "threshold": 0.5, "cache": cache} | options
    return evaluate_images(detector, samples, settings, **options)


def test_figures_are_those_of_the_images_own_pixels(blobs: SampleSet, brightness: Brightness) -> None:
    outcomes, mode = run(blobs, brightness)
    assert mode == "exact"
    assert [(one.name, one.normal, one.anomalous) for one in outcomes] == [("bottle", 4, 5), ("cable", 4, 5)]
    for one in outcomes:
        scores, truth, image_scores, labels = [], [], [], []
        for sample in blobs:
            if sample.class_name == one.name:
                prediction = brightness(torch.from_numpy(sample.read_image())[None])
                scores.append(prediction.anomaly_map[0].numpy().ravel())
                truth.append(sample.read_mask().ravel())
                image_scores.append(float(prediction.image_score))
                labels.append(sample.label)
        expected = roc_auc_score(np.concatenate(truth), np.concatenate(scores))
        assert one.figures["pixel"]["auroc"].value == pytest.approx(expected, abs=1e-9)
        assert one.figures["image"]["auroc"].value == pytest.approx(roc_auc_score(labels, image_scores))
        assert one.figures["pixel"]["auroc"].value > 0.95  # a bright blob is found by brightness
        low, high = one.figures["image"]["auroc"].interval
        assert low <= one.figures["image"]["auroc"].value <= high
        assert len(one.cases) == len(one.scores) == 9
        assert [case["pixel_ap"] is None for case in one.cases] == [not case["label"] for case in one.cases]


def test_sizes_change_the_grid_and_hardly_the_figures(blobs: SampleSet, brightness: Brightness) -> None:
    native, _ = run(blobs, brightness)
    square, _ = run(blobs, brightness, replace(SETTINGS, size=64))
    for one, other in zip(native, square, strict=True):
        difference = one.figures["pixel"]["auroc"].value - other.figures["pixel"]["auroc"].value
        assert 0 < abs(difference) < 0.02


def test_masks_are_read_by_the_rule_of_the_settings(tmp_path, brightness: Brightness) -> None:
    """JPEG masks: the published rule marks the greys around them, too."""
    rng = np.random.default_rng(0)
    for number in range(3):
        image, mask = rng.integers(0, 200, (40, 40)).astype(np.uint8), np.zeros((40, 40), np.uint8)
        mask[9:21, 11:30] = 255
        for folder, pixels, suffix in (("images", image, "png"), ("masks", mask, "jpg")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.{suffix}", quality=50)
    found = {}
    for rule in ("auto", "published", "half"):
        for name in ("kvasir", "ddti"):
            settings = replace(SETTINGS, size=32, resamples=0, masks=rule)
            outcomes, _ = run(open_dataset(name, tmp_path), brightness, settings)
            found[name, rule] = outcomes[0].figures["pixel"]["ap"].value
    assert found["kvasir", "auto"] == found["kvasir", "published"] == found["ddti", "published"]
    assert found["ddti", "auto"] == found["ddti", "half"] == found["kvasir", "half"]
    assert found["kvasir", "published"] != found["kvasir", "half"]


def test_maps_go_to_the_masks_grid() -> None:
    anomaly_map = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    resized, mask = on_grid(anomaly_map, np.zeros((8, 12), bool), None)
    assert resized.shape == mask.shape == (8, 12)
    same, _ = on_grid(anomaly_map, np.zeros((4, 6), bool), None)
    assert np.array_equal(same, anomaly_map)


def test_image_level_sets_have_no_pixel_figures(tmp_path, blobs: SampleSet, brightness: Brightness) -> None:
    for sample in blobs[:9]:
        target = tmp_path / "yn" / ("yes" if sample.label else "no") / f"{sample.image.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(sample.image.read_bytes())
    outcomes, _ = run(open_dataset("brainmri", tmp_path / "yn"), brightness)
    assert set(outcomes[0].figures) == {"image"}


def test_a_set_has_the_threshold_of_the_network_that_most_images_go_through(
    tmp_path: Path, blobs: SampleSet
) -> None:
    detector = load_detector("medzsad-mini", device="cpu")
    detector.colour_threshold, blobs = 0.4, replace(blobs, name="own")
    assert threshold_for(detector, blobs) == detector.threshold
    assert threshold_for(detector, replace(blobs, name="kvasir")) == 0.4  # the catalogue knows
    pixels = np.random.default_rng(0).integers(60, 255, (32, 40, 3), np.uint8)
    samples = []
    for index, sample in enumerate(blobs.samples[:3]):
        path = tmp_path / f"{index}.png"
        Image.fromarray(pixels).save(path)
        samples.append(replace(sample, image=path))
    assert threshold_for(detector, replace(blobs, samples=(*samples, blobs.samples[0]))) == 0.4
    result = predict(samples[0].image, detector)
    assert result.threshold == 0.4
    assert predict(samples[0].image, detector, threshold=0.7).threshold == 0.7
    grey = Image.fromarray(pixels[..., 0])
    grey.save(tmp_path / "grey.png")
    assert predict(tmp_path / "grey.png", detector).threshold == detector.threshold
    assert predict(tmp_path / "grey.png", detector, modality="rgb").threshold == 0.4


def test_every_map_can_be_kept_and_progress_is_told(blobs: SampleSet, brightness: Brightness) -> None:
    kept, steps = [], []

    def progress(samples, total):
        for sample in samples:
            steps.append(total)
            yield sample

    run(blobs, brightness, keep=lambda sample, anomaly_map: kept.append(sample.id), progress=progress)
    assert kept == [sample.id for sample in blobs]
    assert steps == [18] * 18


def test_a_mask_that_is_missing_is_named(blobs_root, brightness: Brightness) -> None:
    samples = open_dataset("mvtec", blobs_root)
    victim = next(sample for sample in samples if sample.mask is not None)
    victim.mask.write_bytes(b"")
    with pytest.raises(BadInput, match=victim.mask.name):
        run(samples, brightness)


def test_a_set_of_volumes_has_the_threshold_of_volumes(volumes: SampleSet) -> None:
    detector = detector_of_slices()
    assert (detector.threshold, threshold_for(detector, volumes)) == (0.5, 0.2)
    detector.threshold = 0.3  # a caller's
    assert threshold_for(detector, volumes) == 0.3
