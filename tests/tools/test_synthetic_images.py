"""The generator of synthetic images: shapes, ranges, seeds, and masks that tell where the lesion is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

GENERATOR = Path(__file__).parents[2] / "tools" / "synthetic_images.py"
SIZE = 96
SLICES = (
    torch.linspace(0, 255, SIZE).view(1, SIZE, 1).expand(4, SIZE, SIZE).contiguous().to(torch.uint8)
)  # smooth "slices" that stand for real ones


@pytest.fixture(scope="module")
def synthetic() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthetic_images", GENERATOR)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


LOOKS = (
    "brain",
    "abstract",
    "body",
    "real",
    "endoscopy",
    "ultrasound",
    "surface",
    "objects",
    "skin",
    "colon",
    "thyroid",
)


def test_all_looks_are_tested(synthetic: ModuleType) -> None:
    assert synthetic.LOOKS == LOOKS
    assert sum(synthetic.SHARES) == pytest.approx(1)


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_keeps_shapes_and_ranges(synthetic: ModuleType, look: str) -> None:
    batch = synthetic.generate(3, 24, SIZE, SLICES, looks=(look,))
    assert batch.images.shape == (24, 3, SIZE, SIZE)
    assert batch.masks.shape == (24, SIZE, SIZE)
    assert batch.images.dtype == batch.masks.dtype == torch.float32
    assert batch.images.isfinite().all()
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert batch.images.flatten(1).std(1).median() > 0.02
    assert set(batch.masks.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(batch.masks.flatten(1).any(1).long(), batch.labels)
    assert 0.25 < batch.labels.float().mean() < 0.85  # whole normal images are part of every look


@pytest.mark.parametrize("look", LOOKS)
def test_the_mask_is_where_the_canvas_changed(synthetic: ModuleType, look: str) -> None:
    r = synthetic.Random(8, SIZE)
    canvas = synthetic.real(r, 20, SLICES) if look == "real" else synthetic.MAKERS[look](r, 20)
    clean = canvas.take(torch.arange(20))
    sick = torch.ones(20, 1, 1)
    sick[:4] = 0
    mask = synthetic.harm(r, canvas, sick, look) > 0
    difference = synthetic.difference(canvas, clean)
    assert not mask[:4].any()
    assert not difference[:4].any()
    inside = torch.stack([d[m].mean() for d, m in zip(difference[4:], mask[4:], strict=True)])
    outside = torch.stack([d[~m].mean() for d, m in zip(difference[4:], mask[4:], strict=True)])
    assert (inside > 3 * outside).float().mean() > 0.8  # a mask can be empty: its place was not visible
    assert inside.nanmedian() > 0.04


@pytest.mark.parametrize("look", LOOKS)
def test_twins_are_equal_but_for_the_lesion(synthetic: ModuleType, look: str) -> None:
    batch = synthetic.generate(4, 24, SIZE, SLICES, looks=(look,), pairs=True)
    assert not batch.masks[:12].any()
    visible = batch.labels[12:] == 1
    assert visible.sum() >= 8
    difference = (batch.images[12:] - batch.images[:12]).abs().amax(1)[visible]
    masks = batch.masks[12:][visible] > 0
    assert difference[masks].mean() > 2 * difference[~masks].mean()


@pytest.mark.parametrize("look", ["brain", "endoscopy", "objects"])
def test_the_seed_decides(synthetic: ModuleType, look: str) -> None:
    first, second, other = (synthetic.generate(s, 6, 64, looks=(look,)) for s in (5, 5, 6))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.masks, second.masks)
    assert not torch.equal(first.images, other.images)


def test_colour_is_where_it_belongs(synthetic: ModuleType) -> None:
    for look, coloured in (("brain", False), ("ultrasound", False), ("endoscopy", True), ("skin", True)):
        images = synthetic.generate(9, 12, 64, looks=(look,)).images
        spread = (images[:, 0] - images[:, 2]).abs().flatten(1).mean(1)
        assert bool((spread > 0.02).float().mean() > 0.6) == coloured


def test_a_change_that_nobody_sees_is_no_lesion(synthetic: ModuleType) -> None:
    mask = torch.zeros(1, 64, 64)
    mask[:, 20:40, 20:40] = 1
    changed = torch.zeros(1, 64, 64, dtype=torch.bool)
    assert not synthetic.visible(mask, changed).any()
    changed[:, 20:40, 20:40] = True
    changed[:, 25:27, 25:27] = False  # a small place that happens to be equal does not make a hole
    assert torch.equal(synthetic.visible(mask, changed), mask)
