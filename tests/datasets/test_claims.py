"""What may be said of images that were given under a set's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dataset_factory as factory
import pytest

from medzsad.datasets.catalog import entries
from medzsad.datasets.claims import claim, contradiction, custom, sets_of
from medzsad.datasets.opening import choose, open_dataset
from medzsad.datasets.samples import Sample, SampleSet

VISA = entries()["visa"].classes
BRAIN, SKIN = ("brain",), ("skin",)


def samples(name: str, layout: str, classes: Sequence[str], count: int, split: str = "test") -> SampleSet:
    """``count`` images, dealt out to the classes."""
    images = tuple(
        Sample(Path(f"{i}.png"), i % 2, None, classes[i % len(classes)], "good", f"{i}.png")
        for i in range(count)
    )
    return SampleSet(name, Path("root"), layout, split, "image", images)


@pytest.mark.parametrize(
    ("name", "layout", "classes", "count", "claimed"),
    [
        ("visa", "visa", VISA, 2162, "visa"),
        ("visa", "mvtec", VISA, 2162, "visa"),  # another preparation of it: the classes tell
        ("visa", "meta.json", tuple(one.upper() for one in VISA), 2162, "visa"),
        ("visa", "visa", VISA, 24, "visa (part: 24 of 2162 images)"),
        ("visa", "mvtec", VISA[:1], 24, "visa (part: 24 of 2162 images)"),
        ("visa", "mvtec", ("grain", "weave"), 24, "custom: images given as visa"),
        ("visa", "mvtec", (*VISA, "mine"), 24, "custom: images given as visa"),
        ("visa", "mvtec", VISA, 2163, "custom: images given as visa"),
        ("visa", "images-masks", ("candle",), 24, "custom: images given as visa"),
        ("visa", "yes-no", ("candle",), 24, "custom: images given as visa"),
        # Of one class: by its own layout, or by the number of images.
        ("headct", "headct", BRAIN, 200, "headct"),
        ("headct", "headct", BRAIN, 20, "headct (part: 20 of 200 images)"),
        ("headct", "yes-no", BRAIN, 200, "headct"),
        ("headct", "yes-no", BRAIN, 20, "custom: images given as headct"),
        ("headct", "headct", BRAIN, 201, "custom: images given as headct"),
        ("brainmri", "yes-no", BRAIN, 253, "brainmri"),
        ("brainmri", "yes-no", BRAIN, 40, "custom: images given as brainmri"),
        ("brainmri", "meta.json", BRAIN, 40, "custom: images given as brainmri"),
        ("isic", "images-masks", SKIN, 50, "custom: images given as isic"),
        # Sets whose number of images is not known.
        ("covid19", "covid", ("chest",), 300, "covid19"),
        ("covid19", "yes-no", ("chest",), 300, "custom: images given as covid19"),
        ("dagm-balanced", "dagm-balanced", ("Class1", "Class2"), 8, "dagm-balanced (part: 2 of 10 classes)"),
        ("folder", "mvtec", ("mine",), 8, "folder"),
    ],
)
def test_a_folder_is_called_what_it_can_be_known_to_be(
    name: str, layout: str, classes: tuple[str, ...], count: int, claimed: str
) -> None:
    there = samples(name, layout, classes, count)
    found, reason = claim(there, there.samples)
    assert found == claimed
    assert bool(reason) == claimed.startswith("custom")
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("name", "layout", "classes", "count", "reason"),
    [
        ("headct", "yes-no", BRAIN, 20, ""),  # may be a part of it
        ("isic", "images-masks", SKIN, 50, ""),
        ("headct", "yes-no", BRAIN, 201, "201 images, but headct has 200 in its test split"),
        ("visa", "mvtec", ("grain", "weave"), 24, "visa has no class grain, weave"),
        ("visa", "images-masks", ("candle",), 24, "nothing names the classes in layout images-masks"),
        ("visa", "visa", VISA, 24, ""),
        ("folder", "mvtec", ("mine",), 8, ""),
    ],
)
def test_what_speaks_against_a_set(name: str, layout: str, classes, count: int, reason: str) -> None:
    there = samples(name, layout, classes, count)
    assert contradiction(there, there.samples) == reason


def test_what_a_recipe_leaves_out_is_told() -> None:
    whole = samples("brainmri", "yes-no", BRAIN, 253)
    assert claim(whole, choose(whole, limit=100).samples)[0] == "brainmri (part: 100 of 253 images)"
    covid = samples("covid19", "covid", ("chest",), 300)
    assert claim(covid, choose(covid, limit=100).samples)[0] == "covid19 (part: 100 of 300 images)"
    mixed = samples("visa", "mvtec", (*VISA[:2], "mine"), 30)
    assert claim(mixed, choose(mixed, classes=VISA[:2]).samples)[0] == "visa (part: 20 of 2162 images)"


def test_splits_are_counted_each_for_itself() -> None:
    train = samples("visa", "visa", VISA, 8659, "train")
    assert claim(train, train.samples) == ("visa", "")


def test_volumes_of_ones_own_are_not_brats(tmp_path: Path) -> None:
    factory.scan_volume(tmp_path / "imagesTr" / "a.nii.gz")
    factory.label_volume(tmp_path / "labelsTr" / "a.nii.gz")
    found = open_dataset("brats2013", tmp_path)
    assert claim(found, found.samples)[0] == "custom: volumes given as brats2013"


def test_the_sets_of_a_claim_are_not_zero_shot() -> None:
    assert sets_of("visa") == ("visa",)
    assert sets_of("all 14 sets") == ("all 14 sets",)
    assert sets_of("visa (part: 24 of 2162 images)") == ("visa",)
    assert sets_of(custom("visa")) == ("visa", "folder", "volumes")
