"""Augmentation: the same for the same seed, and the mask always goes where the image goes."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from medzsad.errors import BadInput
from medzsad.training.augmentation import (
    Augmentation,
    Example,
    augment,
    generator_for,
    mosaic,
    turn_and_zoom,
)

EVERYTHING = Augmentation(
    mosaic=0.5,
    flip_horizontal=0.5,
    flip_vertical=0.5,
    rotation=20,
    scale=0.2,
    brightness=0.2,
    contrast=0.3,
)


def example(number: int = 0, size: int = 64, label: int = 1) -> Example:
    """Smooth intensities with a bright disc, which the mask marks; normal ones have none."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disc = ((rows - 0.35 * size) ** 2 + (columns - 0.6 * size) ** 2 < (0.12 * size) ** 2) & bool(label)
    grey = 0.1 + 0.05 * number + 0.1 * rows / size
    image = torch.where(disc, torch.tensor(0.95), grey).expand(3, size, size).contiguous()
    return Example(image, disc.to(torch.uint8), label)


def applied(settings: Augmentation, seed: int, base: Example | None = None) -> Example:
    mates = [(n, n % 2) for n in range(6)]
    return augment(
        example() if base is None else base,
        settings,
        generator_for(seed, 0, 0),
        mates=mates,
        load=lambda mate: example(mate[0], 80, mate[1]),
        resize=resized,
    )


def resized(whole: Example, size: int = 64) -> Example:
    image = F.interpolate(whole.image[None], (size, size), mode="bilinear", antialias=True)[0]
    mask = F.interpolate(whole.mask[None, None].float(), (size, size), mode="nearest-exact")[0, 0]
    return whole._replace(image=image.clamp(0, 1), mask=mask.to(whole.mask.dtype))


def test_nothing_happens_by_default() -> None:
    base = example()
    found = augment(base, Augmentation(), generator_for(0, 0, 0))
    assert torch.equal(found.image, base.image)
    assert torch.equal(found.mask, base.mask)
    assert found[2:] == base[2:]


def test_the_same_seed_epoch_and_index_give_the_same_image() -> None:
    first, again = applied(EVERYTHING, 4), applied(EVERYTHING, 4)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    draws = {
        torch.rand(1, generator=generator_for(seed, epoch, index)).item()
        for seed in (0, 1)
        for epoch in (0, 1, 2)
        for index in range(20)
    }
    assert len(draws) == 2 * 3 * 20


@pytest.mark.parametrize("name", [field.name for field in fields(Augmentation) if field.type == "float"])
def test_each_change_changes_images_and_keeps_their_form(name: str) -> None:
    base, changed = example(), 0
    value = 15.0 if name == "rotation" else 0.5
    for seed in range(8):
        found = applied(Augmentation(**{name: value}), seed)
        assert found.image.shape == base.image.shape
        assert found.image.dtype == torch.float32
        assert 0 <= found.image.min() <= found.image.max() <= 1
        assert found.mask.dtype == base.mask.dtype
        assert set(found.mask.unique().tolist()) <= {0, 1}
        changed += not torch.equal(found.image, base.image)
    assert changed >= 2
    assert torch.equal(base.image, example().image)  # not in place


def test_the_mask_goes_where_the_image_goes() -> None:
    geometry = Augmentation(mosaic=0.4, flip_horizontal=0.5, flip_vertical=0.5, rotation=30, scale=0.3)
    for seed in range(20):
        found = applied(geometry, seed)
        bright = found.image[0] > 0.6  # half-way between disc and ground
        overlap = (bright & (found.mask > 0)).sum() / (bright | (found.mask > 0)).sum()
        assert overlap > 0.8, seed


def test_one_change_does_not_alter_the_draws_of_another() -> None:
    for seed in range(6):
        flipped = applied(Augmentation(flip_horizontal=0.5), seed)
        both = applied(Augmentation(flip_horizontal=0.5, brightness=0.3), seed)
        assert torch.equal(flipped.mask, both.mask)


def test_flips_come_at_their_rate() -> None:
    base = example()
    flips = [
        not torch.equal(applied(Augmentation(flip_vertical=0.25), n).mask, base.mask) for n in range(400)
    ]
    assert 0.18 < sum(flips) / 400 < 0.32
    assert torch.equal(applied(Augmentation(flip_vertical=1), 0).image, base.image.flip(-2))


def test_a_mosaic_is_four_images_in_their_places() -> None:
    tiles = [
        Example(torch.full((3, *size), value), torch.full(size, mark), mark)
        for value, mark, size in ((0.1, 0, (5, 8)), (0.2, 1, (5, 8)), (0.3, 0, (20, 30)), (0.4, 0, (2, 3)))
    ]
    image, mask, label, has_mask = mosaic(tiles)
    assert (image.shape, mask.shape) == ((3, 10, 16), (10, 16))
    for number, value in enumerate((0.1, 0.2, 0.3, 0.4)):
        rows = slice(0, 5) if number < 2 else slice(5, 10)
        columns = slice(0, 8) if number % 2 == 0 else slice(8, 16)
        torch.testing.assert_close(image[:, rows, columns], torch.full_like(image[:, rows, columns], value))
        assert (mask[rows, columns] == (number == 1)).all()
    assert (label, has_mask) == (1, True)
    normal = [tile._replace(label=0, mask=tile.mask * 0) for tile in tiles]
    assert mosaic(normal).label == 0
    assert not mosaic([*tiles[:3], tiles[3]._replace(has_mask=False)]).has_mask


def tile_numbers(found: Example) -> list[int]:
    """Which :func:`example` stands in each corner, as its ground tells."""
    corners = [found.image[0, row, column].item() for row in (1, 33) for column in (1, 33)]
    return [round((value - 0.1) / 0.05) for value in corners]


@pytest.mark.parametrize("own", [0, 1])
def test_mosaics_hold_four_different_images_of_the_class_under_the_drawn_ones_label(own: int) -> None:
    seen, with_marks, labels = set(), set(), set()
    for seed in range(30):
        found = applied(Augmentation(mosaic=1), seed, example(0, label=own))
        numbers = tile_numbers(found)
        assert len(set(numbers)) == 4
        seen.update(numbers)
        with_marks.add(bool(found.mask.any()))
        assert found.label == own
        either = applied(Augmentation(mosaic=1, mosaic_label="any"), seed, example(0, label=own))
        assert torch.equal(either.image, found.image)
        assert either.label == int(any(number % 2 for number in numbers))
        labels.add(either.label)
    assert seen == set(range(6))  # the drawn one among them, and now and then not
    assert with_marks == labels == {1}  # of six images three have marks: four always show one


def test_mosaics_come_at_their_rate() -> None:
    plain = example().image
    made = [not torch.equal(applied(Augmentation(mosaic=0.2), seed).image, plain) for seed in range(300)]
    assert 0.13 < sum(made) / 300 < 0.27


def test_few_images_are_repeated_and_without_them_there_is_no_mosaic() -> None:
    settings, base, draw = Augmentation(mosaic=1), example(0, label=0), generator_for(0, 0, 0)
    ways = {"load": lambda n: example(n, label=0), "resize": resized}
    two = augment(base, settings, draw, mates=[0, 2], **ways)
    assert sorted(tile_numbers(two)) == [0, 0, 2, 2]
    for missing in ({**ways}, {"mates": [1], "load": ways["load"]}, {"mates": [1], "resize": resized}):
        with pytest.raises(ValueError, match="images of the class"):
            augment(base, settings, draw, **missing)


def test_a_quarter_turn_is_exact() -> None:
    image = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0))
    mask = (image[0] > 0.5).to(torch.uint8)
    turned, marks = turn_and_zoom(image, mask, math.pi / 2, 1.0)
    sense = next(k for k in (1, 3) if torch.equal(marks, mask.rot90(k)))
    torch.testing.assert_close(turned, image.rot90(sense, (1, 2)), atol=1e-5, rtol=0)


def test_enlarging_enlarges() -> None:
    base = example()
    _, larger = turn_and_zoom(base.image, base.mask, 0.0, 1.5)
    _, smaller = turn_and_zoom(base.image, base.mask, 0.0, 0.8)
    assert larger.sum() / base.mask.sum() == pytest.approx(1.5**2, rel=0.1)
    assert smaller.sum() / base.mask.sum() == pytest.approx(0.8**2, rel=0.1)


def test_what_was_scaled_out_of_sight_counts_as_normal() -> None:
    image, mask = torch.full((3, 64, 64), 0.5), torch.zeros(64, 64)
    mask[:2] = 1
    labels = {
        augment(Example(image, mask, 1), Augmentation(scale=0.5), generator_for(s, 0, 0)).label
        for s in range(10)
    }
    assert labels == {0, 1}
    unmarked = Example(image, torch.zeros(64, 64), 1, has_mask=False)
    assert augment(unmarked, Augmentation(scale=0.5), generator_for(0, 0, 0)).label == 1


def test_black_stays_black_when_brighter() -> None:
    image = torch.zeros(3, 8, 8)
    image[:, 2:4] = 0.5
    found = augment(
        Example(image, torch.zeros(8, 8), 0), Augmentation(brightness=0.5), generator_for(1, 0, 0)
    )
    assert (found.image[:, 5:] == 0).all()
    assert found.image[0, 2, 0] != 0.5


@pytest.mark.parametrize(
    ("settings", "variants"),
    [
        ({}, 1),
        ({"flip_horizontal": 0.5}, 2),
        ({"flip_horizontal": 1}, 1),
        ({"flip_horizontal": 0.5, "flip_vertical": 0.1}, 4),
        ({"mosaic": 0.2}, None),
        ({"contrast": 0.1}, None),
        ({"flip_vertical": 0.5, "rotation": 5}, None),
    ],
)
def test_variants_are_counted(settings: dict[str, Any], variants: int | None) -> None:
    augmentation = Augmentation(**settings)
    assert augmentation.variants == variants
    if variants is not None:
        seen = {applied(augmentation, seed).image.numpy().tobytes() for seed in range(60)}
        assert len(seen) == variants


@pytest.mark.parametrize(
    "settings",
    [
        {"mosaic": 1.5},
        {"rotation": -1},
        {"rotation": 181},
        {"scale": 0.95},
        {"contrast": float("nan")},
        {"flip_vertical": "often"},
        {"mosaic": True},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"(?i)augmentation .*{next(iter(settings))}"):
        Augmentation(**settings)


def test_another_label_of_mosaics_is_refused() -> None:
    with pytest.raises(BadInput, match="mosaic_label: expected one of drawn, any, got 'max'"):
        Augmentation(mosaic_label="max")
