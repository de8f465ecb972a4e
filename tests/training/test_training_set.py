"""Training images, and which of them a step sees."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from medzsad.datasets.opening import open_dataset
from medzsad.detectors.base import AnomalyDetector, Prediction
from medzsad.evaluation.image_sets import on_grid
from medzsad.predicting import predict
from medzsad.training.augmentation import Augmentation
from medzsad.training.recipe import DataSource
from medzsad.training.sources import open_source
from medzsad.training.training_set import Draw, EpochPlan, InputFormat, StepBatches, TrainingSet


def test_every_image_once_an_epoch_in_another_order() -> None:
    plan = EpochPlan([5, 8], [1.0, 1.0], seed=3)
    first, second = plan.order(0), plan.order(1)
    assert sorted(first) == sorted(second) == list(range(13))
    assert list(first) != list(second)
    assert list(first) == list(EpochPlan([5, 8], [1.0, 1.0], seed=3).order(0))
    assert list(first) != list(EpochPlan([5, 8], [1.0, 1.0], seed=4).order(0))


def test_weights_of_data_sets() -> None:
    plan = EpochPlan([5, 8], [2.4, 0.5], seed=3)
    assert plan.length == 12 + 4
    seen = Counter(plan.order(0).tolist())
    assert sum(n for i, n in seen.items() if i < 5) == 12
    assert all(2 <= seen[i] <= 3 for i in range(5))
    halves = [{i for i in plan.order(epoch).tolist() if i >= 5} for epoch in range(8)]
    assert all(len(half) == 4 for half in halves)
    assert set.union(*halves) == set(range(5, 13))  # not always the same half


def test_from_any_step_on_it_goes_as_from_the_start() -> None:
    plan = EpochPlan([10], [1.0], seed=1)
    whole = list(StepBatches(plan, 4, epochs=3))
    assert len(whole) == 9
    for start in range(10):
        later = StepBatches(plan, 4, epochs=3, start=start)
        assert list(later) == whole[start:]
        assert len(later) == len(whole) - start


def test_steps_are_full() -> None:
    batches = list(StepBatches(EpochPlan([10], [1.0], seed=1), 4, epochs=1))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert {draw.image for batch in batches for draw in batch} == set(range(10))
    assert batches[2][2:] == batches[0][:2]  # filled from the beginning
    assert Draw(4, 0, 9).index(9) == 2  # a tuple like any other
    small = list(StepBatches(EpochPlan([3], [1.0], seed=1), 8, epochs=1))
    assert Counter(draw.image for draw in small[0]).most_common()[-1][1] == 2


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_see_what_one_would(world_size: int) -> None:
    plan = EpochPlan([11], [1.0], seed=2)
    one = list(StepBatches(plan, 2 * world_size, epochs=2))
    shares = [
        list(StepBatches(plan, 2, epochs=2, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == one


SIDE = 56


class Recorder(AnomalyDetector):
    """Keeps what it is shown."""

    method = "recorder"

    def __init__(self) -> None:
        super().__init__(image_size=SIDE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
        self.inputs: list[Tensor] = []

    def detect(self, inputs: Tensor) -> Prediction:
        self.inputs += inputs.clone().unbind(0)
        return Prediction(inputs[:, 0] * 0, inputs[:, 0, 0, 0] * 0, inputs[:, 0, 0, 0] * 0)

    def to_checkpoint(self):
        raise NotImplementedError

    @classmethod
    def from_checkpoint(cls, checkpoint, *, clip_weights=None):
        raise NotImplementedError


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two normal images, one anomalous one with a mask, of other sides than the detector's."""
    dice = np.random.default_rng(0)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:45] = 255
    for name in ("good/0", "good/1", "bad/0"):
        path = tmp_path / "set" / "thing" / "test" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 255, (40, 60, 3)).astype(np.uint8)).save(path)
    path = tmp_path / "set" / "thing" / "ground_truth" / "bad" / "0_mask.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(mask).save(path)
    return tmp_path / "set"


def opened(tmp_path: Path, dataset: str, root: Path | None, **fields):
    source = DataSource(dataset, None if root is None else str(root), **fields)
    return open_source(source, tmp_path / "data", side=SIDE)


def test_images_are_the_detectors_own_inputs(tmp_path: Path, images: Path, recorder: Recorder) -> None:
    found = TrainingSet([opened(tmp_path, "mvtec", images)], InputFormat.of(recorder))
    samples = open_dataset("mvtec", images)
    assert len(found) == len(samples) == 3
    for index, sample in enumerate(samples):
        item, image = found[index], torch.from_numpy(sample.read_image())
        assert torch.equal(item["image"], recorder.preprocess(image[None])[0])
        assert (item["label"], item["class_name"], item["has_mask"]) == (sample.label, "thing", True)
        assert item["key"] == f"mvtec/{sample.id}"
        assert bool(item["mask"].any()) == bool(sample.label)
    mask = next(item for item in (found[i] for i in range(3)) if item["label"])["mask"]
    assert mask.shape == (SIDE, SIDE)
    assert mask.float().mean() == pytest.approx(150 / 2400, rel=0.1)


def test_only_a_draw_is_augmented_and_always_alike(tmp_path: Path, images: Path, recorder: Recorder) -> None:
    changes = Augmentation(flip_horizontal=0.5, brightness=0.5, mosaic=0.5)
    sources = [opened(tmp_path, "mvtec", images)]
    found = TrainingSet(sources, InputFormat.of(recorder), augmentation=changes, seed=1)
    plain = TrainingSet(sources, InputFormat.of(recorder))
    draws = [[Draw(0, 0, position), Draw(1, 1, position)] for position in range(3)]
    assert torch.equal(found[0]["image"], plain[0]["image"])
    assert not torch.equal(found[draws[0][0]]["image"], plain[0]["image"])
    here = [found[draw]["image"] for batch in draws for draw in batch]
    there = [batch["image"] for batch in DataLoader(found, batch_sampler=draws, num_workers=2)]
    assert torch.equal(torch.stack(here), torch.cat(there))
    assert not torch.equal(here[0], here[2])
    never = replace(sources[0], source=replace(sources[0].source, mosaic=0.0))
    only_mosaics = Augmentation(mosaic=1.0)
    with_mosaics, without = (
        TrainingSet([one], InputFormat.of(recorder), augmentation=only_mosaics)[Draw(0, 0, 0)]["image"]
        for one in (sources[0], never)
    )
    assert torch.equal(without, plain[0]["image"])
    assert not torch.equal(with_mosaics, plain[0]["image"])


def test_mosaics_are_those_of_the_published_code(tmp_path: Path, recorder: Recorder) -> None:
    """Four images pasted side by side at their own size and resized together, by Pillow as they do it."""
    dice = np.random.default_rng(3)
    colours = dice.integers(40, 215, (6, 3))
    for number, colour in enumerate(colours):
        kind = "bad" if number % 2 else "good"
        pixels = np.clip(colour + dice.normal(0, 6, (90, 140, 3)), 0, 255).astype(np.uint8)
        mask = np.zeros((90, 140), np.uint8)
        mask[20:60, 15 * number : 15 * number + 40] = 255
        for folder, content in ((f"test/{kind}", pixels), ("ground_truth/bad", mask)):
            if folder == f"test/{kind}" or kind == "bad":
                path = tmp_path / "set" / "thing" / folder / f"{number}{'_mask' * (content is mask)}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)
    source = opened(tmp_path, "mvtec", tmp_path / "set")
    found = TrainingSet([source], InputFormat.of(recorder), augmentation=Augmentation(mosaic=1.0))
    grounds = torch.stack([torch.from_numpy(s.read_image()).mean((1, 2)) for s in found.samples])
    for position in range(8):
        drawn = position % 6
        item = found[Draw(drawn, 0, position)]
        assert item["label"] == found.samples[drawn].label
        image = item["image"] * InputFormat.of(recorder).std + InputFormat.of(recorder).mean
        canvas, marks = Image.new("RGB", (280, 180)), Image.new("L", (280, 180))
        for tile in range(4):
            row, column = tile // 2 * 28, tile % 2 * 28
            ground = image[:, row + 4 : row + 24, column + 4 : column + 24].mean((1, 2))
            sample = found.samples[int((grounds - ground).norm(dim=1).argmin())]
            place = (tile % 2 * 140, tile // 2 * 90)
            canvas.paste(Image.open(sample.image), place)
            marks.paste(Image.fromarray(sample.read_mask().astype(np.uint8) * 255), place)
        theirs = np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
        assert np.abs(image.permute(1, 2, 0).numpy() - theirs).max() < 1.5 / 255  # they round to 8 bits
        theirs = np.asarray(marks.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) > 127
        assert (item["mask"].numpy() != theirs).mean() < 0.02


def test_without_masks_only_labels_count(tmp_path: Path, images: Path, recorder: Recorder) -> None:
    for number, folder in enumerate(("yes", "no")):
        path = tmp_path / "mri" / folder / "1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((30, 30), 100 * number, np.uint8)).save(path)
    sources = [opened(tmp_path, "brainmri", tmp_path / "mri"), opened(tmp_path, "mvtec", images)]
    found = TrainingSet(sources, InputFormat.of(recorder))
    assert [source.level for source in sources] == ["image", "pixel"]
    assert [found[i]["has_mask"] for i in range(5)] == [False, False, True, True, True]
    assert {found[i]["label"] for i in range(2)} == {0, 1}


def test_slices_are_those_that_predicting_shows(tmp_path: Path, recorder: Recorder) -> None:
    dice = np.random.default_rng(1)
    image = np.zeros((30, 24, 10), np.float32)
    image[4:27, 3:20, 1:9] = 100 + 20 * dice.standard_normal((23, 17, 8))
    label = np.zeros(image.shape, np.uint8)
    label[10:16, 8:12, 3:5] = 1
    affine = np.diag([-1.0, 1.0, 4.0, 1.0])
    case = tmp_path / "volumes" / "case1"
    case.mkdir(parents=True)
    nibabel.Nifti1Image(image, affine).to_filename(case / "flair.nii.gz")
    nibabel.Nifti1Image(label, affine).to_filename(case / "seg.nii.gz")
    source = opened(tmp_path, "volumes", tmp_path / "volumes")
    assert (source.volumes, source.level, source.anomalous) == (1, "pixel", 2)
    found = TrainingSet([source], InputFormat.of(recorder))
    predict(case / "flair.nii.gz", recorder)
    assert len(found) == len(recorder.inputs)
    for index, shown in enumerate(recorder.inputs):
        # Slices are kept at 8 bits.
        assert (found[index]["image"] - shown).abs().max() < 2 / 255 / 0.2
    marked = [found[i] for i in range(len(found)) if found[i]["label"]]
    assert all(item["mask"].any() for item in marked)
    assert sum(bool(found[i]["mask"].any()) for i in range(len(found))) == 2
    stacks = list((tmp_path / "data" / "slices").iterdir())
    before = [path.stat().st_mtime_ns for path in stacks]
    opened(tmp_path, "volumes", tmp_path / "volumes")
    assert [path.stat().st_mtime_ns for path in stacks] == before  # not cut again


def test_synthetic_images_are_made_and_always_the_same(tmp_path: Path, recorder: Recorder) -> None:
    inputs = InputFormat.of(recorder)
    first, second, other = (
        TrainingSet([opened(tmp_path / name, "synthetic", None, limit=8, split=split)], inputs)
        for name, split in (("a", "test"), ("b", "test"), ("a", "valid"))
    )
    assert len(first) == 8
    assert sum(first[i]["label"] for i in range(8)) == 4
    assert all(torch.equal(first[i]["image"], second[i]["image"]) for i in range(8))
    assert not torch.equal(first[0]["image"], other[0]["image"])
    assert all(bool(first[i]["mask"].any()) == bool(first[i]["label"]) for i in range(8))


@pytest.mark.parametrize(("name", "rule"), [("kvasir", "published"), ("ddti", "half")])
def test_masks_are_those_of_an_evaluation(tmp_path: Path, recorder: Recorder, name: str, rule: str) -> None:
    """JPEG masks: validation must find what the evaluation of the same set finds."""
    mask = np.zeros((80, 90), np.uint8)
    mask[15:44, 31:60] = 255
    for folder, pixels, suffix in (("images", mask // 2, "png"), ("masks", mask, "jpg")):
        (tmp_path / name / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / name / folder / f"1.{suffix}", quality=50)
    (sample,) = open_dataset(name, tmp_path / name)
    images = TrainingSet([opened(tmp_path, name, tmp_path / name)], InputFormat.of(recorder))
    flat = np.zeros((SIDE, SIDE), np.float32)
    _, expected = on_grid(flat, sample.read_mask(rule), SIDE, rule)
    assert np.array_equal(images[0]["mask"].numpy(), expected)
    other = {"published": "half", "half": "published"}[rule]
    assert not np.array_equal(expected, on_grid(flat, sample.read_mask(other), SIDE, other)[1])
