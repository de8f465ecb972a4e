"""Slices of made volumes: seeded, labelled, and shown as a detector of slices is shown them."""

from __future__ import annotations

import importlib
from dataclasses import replace
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
    assert batch.images.max() <= 1 + 1e-6  # blurred sums
    assert torch.equal(batch.lesions.flatten(1).any(1).long(), batch.labels)
    assert 0.2 < batch.labels.float().mean() < 1
    # Most of what is shown lies near the mean of the volume.
    body = decode(batch.images)[batch.images > 0.1]
    assert body.median().abs() < 1
    assert 0.4 < body.std() < 3


def test_whole_volumes_are_shown_as_predict_shows_them(tool: ModuleType, sources) -> None:
    only = {"shares": (0, 0, 0, 0, 1)}
    batch = tool.generate(5, 20, 64, sources, **only)
    for one, same in zip(batch, tool.generate(5, 20, 64, sources, **only), strict=True):
        assert torch.equal(one, same)
    assert batch.images.shape == (20, 3, 64, 64)
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert 0.2 < (batch.labels == 1).float().mean() <= 0.6  # half are of heads without lesions
    assert set(batch.brain.unique().tolist()) == {0.0, 1.0}
    lesion, inside = batch.lesions > 0, batch.brain == 1
    assert (lesion & inside).sum() > 0.9 * lesion.sum() > 0
    assert not batch.brain[batch.images[:, 0] == 0].any()
    body = decode(batch.images)[batch.images > 0]
    assert body.mean().abs() < 1
    assert 0.4 < body.std() < 2


def test_shown_volumes_do_not_change_the_other_samples(tool: ModuleType, sources) -> None:
    shares = (0.5, 0.3, 0.2, 0.0)
    for one, same in zip(
        tool.generate(3, 6, 64, sources, shares=shares),
        tool.generate(3, 6, 64, sources, shares=(*shares, 0.0)),
        strict=True,
    ):
        assert torch.equal(one, same)


def test_no_lesions_where_none_are_asked_for(tool: ModuleType, sources) -> None:
    for shares in ((1, 0, 0), (0, 1, 0), (0, 0, 0, 0, 1)):
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


def test_an_unmarked_brain_is_unknown_but_for_what_is_drawn_into_it(tool: ModuleType, sources) -> None:
    (volume,) = sources.volumes
    place = np.zeros_like(volume.place)
    place[10:30, 10:30, 10:30] = 2
    unmarked = replace(volume, place=place, head=True, unmarked=place > 0)
    batch = tool.generate(5, 16, 64, tool.Sources([], [], None, [unmarked]), shares=(0, 0, 0, 1))
    assert set(batch.labels.tolist()) <= {-1, 0, 1}
    assert (batch.labels == -1).any()
    assert (batch.labels == 1).any()
    inside = batch.brain == 1
    assert (batch.lesions[inside] != 0).all()
    assert (batch.lesions[batch.brain == 0] == 0).float().mean() > 0.99
    for lesions, label in zip(batch.lesions, batch.labels.tolist(), strict=True):
        assert label == (1 if (lesions > 0).any() else -1 if (lesions < 0).any() else 0)


@pytest.mark.parametrize("kind", ["ct", "mr"])
def test_the_brain_of_a_head_without_labels_lies_in_the_skull(kind: str, tool: ModuleType) -> None:
    from synthetic.volumes import _brain_of

    x, y, z = np.meshgrid(*(np.arange(72) - 35.5,) * 3, indexing="ij")
    distance = 2.0 * np.sqrt(x**2 + y**2 + z**2)
    air, scalp, bone, brain = (-1000, 50, 1000, 35) if kind == "ct" else (0, 100, 5, 60)
    voxels = np.full(distance.shape, float(air))
    for radius, value in ((68, scalp), (60, bone), (54, brain)):
        voxels[distance < radius] = value
    found = _brain_of(kind, voxels, distance < 68, np.full(3, 2.0))
    assert not found[distance > 58].any()
    assert found[distance < 48].mean() > 0.99


def test_heads_can_be_cut_below_the_brain(tool: ModuleType, sources) -> None:
    def brain(below: float) -> float:
        options = {"shares": (1, 0, 0), "stripped": 0.0, "kinds": (0, 1, 0, 0, 0)}
        return float(tool.generate(5, 24, 64, sources, below=below, **options).brain.mean())

    assert 0 < brain(1.0) < 0.8 * brain(0.0)


def test_bodies_are_told_to_show_no_brain_where_that_is_asked_for(tool: ModuleType, sources) -> None:
    (volume,) = sources.volumes
    body = tool.Sources([], [replace(volume, brainless=True)], None)
    for bodies, known in ((False, -1), (True, 0)):
        assert (tool.generate(5, 4, 64, body, shares=(0, 1, 0), bodies=bodies).brain == known).all()
    unknown = tool.generate(5, 4, 64, sources, shares=(0, 1, 0), bodies=True)  # may be a head
    assert (unknown.brain == -1).all()


def test_beyond_the_end_of_a_volume_is_its_last_slice_again(tool: ModuleType) -> None:
    from synthetic.planes import draw_cut

    box = np.array([(0, 95)] * 3)
    core = np.array([(0, 95), (0, 95), (0, 0)])
    ends = 0
    for seed in range(20):
        r = np.random.default_rng(seed)
        cut = draw_cut(r, 16, box, core, np.ones(3), planes=("axial",), shares=(1,))
        if cut.centre[2] < -cut.depths.min() or cut.centre[2] == 0:
            ends += cut.depths[1] == 0
            assert cut.depths[1] == 0 or cut.centre[2] + cut.depths[1] >= 0
            assert cut.depths[2] > 0
        if cut.depths[1] == 0:
            np.testing.assert_array_equal(cut.points[0], cut.points[1])
    assert ends > 5


def test_a_mirror_image_is_on_the_other_side(tool: ModuleType, sources) -> None:
    from synthetic.head_slices import mirrored
    from synthetic.planes import draw_cut

    r = np.random.default_rng(1)
    box = sources.heads[0].brain_box
    cut = draw_cut(r, 64, box, box, np.ones(3), planes=("axial",), shares=(1,), turned=0)
    mirror = mirrored(cut, box)
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
