"""Slices of made volumes: seeded, labelled, and shown as a detector of slices is shown them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from shared_data import Shared

from medzsad.detectors.volume_intensity import decode

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("synthetic_slices")


@pytest.fixture
def sources(tool: ModuleType):
    """A ball of a head: skin, bone, fluid, cortex, white matter, two ventricles; and a volume of noise."""
    from synthetic.heads import BRAIN, INDEX, NAMES, Head, box_of
    from synthetic.volumes import Volume

    x, y, z = np.meshgrid(*(np.arange(96) - 47.5,) * 3, indexing="ij")
    distance = np.sqrt(x**2 + y**2 + z**2)
    tissues = np.zeros(distance.shape, np.uint8)
    for radius, name in ((47, "skin"), (43, "bone"), (38, "fluid"), (36, "cortex"), (31, "white")):
        tissues[distance < radius] = INDEX[name]
    tissues[(abs(abs(x) - 8) < 4) & (abs(y) < 12) & (abs(z) < 8)] = INDEX["ventricle"]
    head = Head(tissues, np.bincount(tissues.ravel(), minlength=len(NAMES)), box_of(BRAIN[tissues]))
    grey = np.random.default_rng(0).standard_normal((40, 40, 40)).astype(np.float32)
    body = np.ones(grey.shape, bool)
    volume = Volume(
        grey, body, np.array([1.0, 1.0, 2.0]), 2 * body.astype(np.uint8), False, ("axial",), 0.5, 1.0, 1.0
    )
    return tool.Sources([head], [volume], None)


def test_the_seed_decides(tool: ModuleType, sources) -> None:
    first, second, other = (tool.generate(seed, 6, 64, sources) for seed in (3, 3, 4))
    for one, same in zip(first, second, strict=True):
        assert torch.equal(one, same)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("shares", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_samples_are_what_a_detector_is_shown(tool: ModuleType, sources, shares) -> None:
    batch = tool.generate(5, 16, 64, sources, shares=shares)
    assert batch.images.shape == (16, 3, 64, 64)
    assert batch.images.isfinite().all()
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert torch.equal(batch.lesions.flatten(1).any(1).long(), batch.labels)
    assert 0.2 < batch.labels.float().mean() < 1
    # Most of what is shown lies near the mean of the volume.
    body = decode(batch.images)[batch.images > 0.1]
    assert body.median().abs() < 1
    assert 0.4 < body.std() < 3


def test_no_lesions_where_none_are_asked_for(tool: ModuleType, sources) -> None:
    for shares in ((1, 0, 0), (0, 1, 0)):
        assert not tool.generate(5, 8, 64, sources, abnormal=0, shares=shares).labels.any()


def test_lesions_of_heads_are_in_the_brain_and_numbered(tool: ModuleType, sources) -> None:
    batch = tool.generate(6, 24, 64, sources, abnormal=1, shares=(1, 0, 0))
    assert batch.lesions.amax() > 3
    inside = batch.brain == 1
    assert inside.any()
    lesion = batch.lesions > 0
    assert (lesion & inside).sum() > 0.9 * lesion.sum()
    assert (batch.brain >= 0).all()


def test_looks_are_equal_slices_without_a_known_brain(tool: ModuleType, sources) -> None:
    batch = tool.generate(5, 4, 64, sources, shares=(0, 0, 1))
    assert torch.equal(batch.images[:, 0], batch.images[:, 1])
    assert torch.equal(batch.images[:, 0], batch.images[:, 2])
    assert (batch.brain == -1).all()


def test_a_mirror_image_is_on_the_other_side(tool: ModuleType, sources) -> None:
    from synthetic.planes import draw_cut

    r = np.random.default_rng(1)
    box = sources.heads[0].brain_box
    cut = draw_cut(r, 64, box, box, np.ones(3), planes=("axial",), shares=(1,), turned=0)
    mirror = tool.mirrored(cut, box)
    place = cut.to_pixel @ np.array([30.0, 50, cut.centre[2], 1])
    other = cut.to_pixel @ np.array([65.0, 50, cut.centre[2], 1])
    np.testing.assert_allclose(mirror @ np.append(place, 1), other, atol=0.5)
    np.testing.assert_allclose(mirror @ np.append(other, 1), place, atol=0.5)


def test_places_in_pixels_are_those_that_values_are_read_at(tool: ModuleType, sources) -> None:
    from synthetic.planes import draw_cut

    box = np.array([(0, 95)] * 3)
    for seed in range(6):
        r = np.random.default_rng(seed)
        cut = draw_cut(
            r,
            64,
            box,
            box,
            np.array([1.0, 2.0, 1.5]),
            planes=("coronal", "sagittal"),
            shares=(1, 1),
            turned=0,
        )
        points = cut.points[0, cut.points.shape[1] // 2].reshape(3, 64, 64)
        for row, column in ((10, 20), (40, 50)):
            found = cut.to_pixel @ np.append(points[:, row, column], 1)
            assert np.abs(found - (row, column)).max() < 8  # but for the bend


def test_without_data_only_looks_are_made(tool: ModuleType) -> None:
    nothing = tool.load_sources(None)
    assert (nothing.heads, nothing.volumes, nothing.slices) == ([], [], None)
    assert tool.generate(1, 4, 64, nothing).images.isfinite().all()


def test_real_label_maps_are_read(tool: ModuleType, shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthetic import heads

    shared("data/brain_label_maps/seg_01.nii.gz")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [self / "seg_01.nii.gz"])
    (head,) = heads.load_heads(shared())
    brain = head.counts[heads.BRAIN].sum()
    assert 0.9e6 < brain < 1.8e6  # mm3
    assert head.counts[heads.INDEX["air"]] < 0.6 * head.tissues.size
