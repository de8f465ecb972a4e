"""The feature cache: the same numbers as without it, kept safely, and refused where it cannot work."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.headclip.anomalyclip import AnomalyCLIP
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.errors import BadInput, OutputNotWritable
from medzsad.training import frozen_features
from medzsad.training.augmentation import Augmentation
from medzsad.training.frozen_features import FeatureCache
from medzsad.training.objectives import Objective

VARIANTS: list[tuple[str, dict[str, Any], bool]] = [  # the last: whether images are not needed any more
    ("headclip", {}, True),
    ("headclip", {"head_paths": "patch"}, True),
    ("headclip", {"head_layers": (4,), "patch_layers": (3, 1, 4)}, True),
    ("anomalyclip", {}, True),
    ("adaclip", {}, False),
    ("adaclip", {"prompt_branch": "L"}, True),
    ("adaclip", {"prompt_branch": "L", "prompt_type": "S"}, True),
]
Build = Callable[..., HeadCLIP | AdaCLIP]
Batch = dict[str, Any]


def gradients(detector: HeadCLIP | AdaCLIP, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    for parameter in detector.parameters():
        parameter.grad = None
    loss = Objective(detector)(batch)["loss"]
    loss.backward()
    return loss, [p.grad.clone() for p in detector.trainable_parameters() if p.grad is not None]


@pytest.mark.parametrize(("method", "changes", "alone"), VARIANTS)
def test_cached_training_has_the_same_loss_and_gradients(
    build_detector: Build, batch: Batch, tmp_path: Path, method: str, changes: dict[str, Any], alone: bool
) -> None:
    detector = build_detector(method, **changes)
    FeatureCache(tmp_path, detector).batch(batch["image"])
    cache = FeatureCache(tmp_path, detector)
    for row in range(2):  # one image at a time, as the cache computes: to the last bit
        one = {name: value[row : row + 1] for name, value in batch.items()}
        frozen = cache.batch(one["image"])
        cached = {**one, "frozen": frozen}
        if alone:
            del cached["image"]
        loss, grads = gradients(detector, cached)
        expected_loss, expected = gradients(detector, one)
        assert torch.equal(loss, expected_loss)
        assert len(grads) == len(expected) > 0
        for ours, theirs in zip(grads, expected, strict=True):
            assert torch.equal(ours, theirs)
    assert (cache.found, cache.computed) == (2, 0)
    together = {**batch, "frozen": cache.batch(batch["image"])}
    loss, grads = gradients(detector, together)
    expected_loss, expected = gradients(detector, batch)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head_layers", [(2, 3, 4), (3, 4), (4,)])
def test_going_on_from_the_frozen_part_is_one_run(
    build_detector: Build, batch: Batch, head_layers: tuple[int, ...]
) -> None:
    detector = build_detector("headclip", head_layers=head_layers, patch_layers=(4, 1, 3))
    with torch.no_grad():
        for parameter in detector.head_weights.parameters():
            parameter.uniform_(0.5, 1.5)
    clip, weights = detector.clip, detector.head_weights
    run = clip.run_blocks(
        clip.embed(batch["image"]),
        layers=(1, 3, 4),
        vv_start=2,
        head_scales=weights.scales("image"),
        vv_head_scales=weights.scales("patch"),
        class_only=True,
    )
    frozen = detector.frozen_features(batch["image"])
    assert ("path" in frozen) == (head_layers[0] > 2)
    image, patches = detector.encode_images(None, frozen=frozen)
    assert torch.equal(image, clip.class_feature(run.tokens, norm=False))
    assert list(patches) == [1, 3, 4]
    for layer, features in patches.items():
        assert torch.equal(features, clip.project(run.layers[layer]))


def test_the_tower_does_not_run_again(small_anomalyclip: AnomalyCLIP, batch: Batch, tmp_path: Path) -> None:
    runs: list[int] = []
    small_anomalyclip.clip.visual.conv1.register_forward_hook(lambda *_: runs.append(1))
    cache = FeatureCache(tmp_path, small_anomalyclip)
    first = cache.batch(batch["image"])
    assert len(runs) == 2
    again = cache.batch(batch["image"].flip(0))
    Objective(small_anomalyclip)({"label": batch["label"], "mask": batch["mask"], "frozen": again})
    assert len(runs) == 2
    for name, value in first.items():
        assert torch.equal(again[name].flip(0), value)
        assert not value.requires_grad
    assert set(first) == {"image", "patches.2", "patches.4"}
    assert first["image"].shape == (2, 32)
    assert first["patches.4"].shape == (2, 26, 32)


def test_training_does_not_make_features_stale(
    small_headclip: HeadCLIP, batch: Batch, tmp_path: Path
) -> None:
    folder = FeatureCache(tmp_path, small_headclip).folder
    with torch.no_grad():
        for parameter in small_headclip.trainable_parameters():
            parameter.add_(0.3)
    cache = FeatureCache(tmp_path, small_headclip)
    assert cache.folder == folder
    frozen = cache.batch(batch["image"][:1])
    expected = small_headclip.compare(batch["image"][:1])
    found = small_headclip.compare(None, frozen=frozen)
    assert torch.equal(found.image_logits, expected.image_logits)
    for layer, probabilities in found.patch_probabilities.items():
        assert torch.equal(probabilities, expected.patch_probabilities[layer])


def test_whatever_changes_features_has_a_folder_of_its_own(build_detector: Build, tmp_path: Path) -> None:
    def folder(detector: HeadCLIP | AdaCLIP, **options: Any) -> Path:
        return FeatureCache(tmp_path, detector, **options).folder

    head, other_tower, frozen_heads = (build_detector("headclip") for _ in range(3))
    with torch.no_grad():
        other_tower.clip.visual.transformer.resblocks[1].mlp[0].weight[0, 0] += 1e-4
    frozen_heads.head_weights.requires_grad_(False)
    other_heads = build_detector("headclip")
    other_heads.head_weights.requires_grad_(False)
    with torch.no_grad():
        other_heads.head_weights.patch[1, 1] = 0.7
    folders = [
        folder(head),
        folder(other_tower),
        folder(frozen_heads),
        folder(other_heads),
        folder(head, precision="bf16"),
        folder(head, compute="bf16"),
        folder(build_detector("headclip", image_size=56)),
        folder(build_detector("headclip", patch_layers=(4,))),
        folder(build_detector("anomalyclip")),
        folder(build_detector("adaclip")),
        folder(build_detector("adaclip", prompt_branch="L")),
    ]
    assert len(set(folders)) == len(folders)
    assert folder(build_detector("headclip")) == folders[0]
    assert folder(build_detector("adaclip", class_name="brain")) == folder(build_detector("adaclip"))


def test_another_image_has_other_features(small_headclip: HeadCLIP, batch: Batch, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, small_headclip)
    cache.batch(batch["image"])
    changed = batch["image"].clone()
    changed[0, 0, 0, 0] += 1e-3
    frozen = cache.batch(changed)
    assert (cache.computed, cache.found) == (3, 1)
    assert torch.equal(
        frozen["tokens"], FeatureCache(tmp_path / "new", small_headclip).batch(changed)["tokens"]
    )


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "text"])
def test_damaged_features_are_computed_again(
    small_anomalyclip: AnomalyCLIP, batch: Batch, tmp_path: Path, damage: str
) -> None:
    cache = FeatureCache(tmp_path, small_anomalyclip)
    expected = cache.batch(batch["image"])
    for file in cache.folder.iterdir():
        content = bytearray(file.read_bytes())
        content[-3] ^= 0x40
        damaged = {"cut": content[:-100], "flipped": content, "emptied": b"", "text": b"features" * 40}
        file.write_bytes(damaged[damage])
    again = FeatureCache(tmp_path, small_anomalyclip)
    for name, value in again.batch(batch["image"]).items():
        assert torch.equal(value, expected[name])
    assert (again.computed, again.found) == (2, 0)
    again.batch(batch["image"])
    assert again.found == 2


def test_bf16_halves_the_room(small_headclip: HeadCLIP, batch: Batch, tmp_path: Path) -> None:
    exact, rounded = (FeatureCache(tmp_path, small_headclip, precision=p) for p in ("exact", "bf16"))
    wanted = small_headclip.frozen_features(batch["image"][:1])["tokens"]
    assert torch.equal(exact.batch(batch["image"][:1])["tokens"], wanted)
    found = rounded.batch(batch["image"][:1])["tokens"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.01, atol=0.01)
    assert rounded.bytes_per_image == exact.bytes_per_image / 2 == 26 * 128 * 2
    sizes = [sum(f.stat().st_size for f in cache.folder.iterdir()) for cache in (exact, rounded)]
    assert sizes[0] == pytest.approx(exact.bytes_per_image, abs=400)
    assert sizes[1] == pytest.approx(rounded.bytes_per_image, abs=400)


def test_autocast_features_are_those_of_autocast(
    small_anomalyclip: AnomalyCLIP, batch: Batch, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path, small_anomalyclip, compute="bf16")
    frozen = cache.batch(batch["image"][:1])
    with torch.autocast("cpu", torch.bfloat16):
        expected = small_anomalyclip.compare(batch["image"][:1])
        found = small_anomalyclip.compare(None, frozen=frozen)
    assert torch.equal(found.image_logits, expected.image_logits)


@pytest.mark.parametrize(
    "settings", [{"mosaic": 0.2}, {"rotation": 5}, {"brightness": 0.1}, {"flip_vertical": 0.5, "scale": 0.1}]
)
def test_endless_variants_are_refused(
    small_headclip: HeadCLIP, tmp_path: Path, settings: dict[str, float]
) -> None:
    with pytest.raises(BadInput, match="cache_features does not go with"):
        FeatureCache(tmp_path, small_headclip, augmentation=Augmentation(**settings))
    FeatureCache(tmp_path, small_headclip, augmentation=Augmentation(flip_horizontal=0.5))


def test_nothing_constant_is_refused(build_detector: Build, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing to keep"):
        FeatureCache(tmp_path, build_detector("adaclip", prompt_type="S"))


@pytest.mark.parametrize("options", [{"precision": "fp8"}, {"limit": 0}])
def test_impossible_options_are_refused(
    small_headclip: HeadCLIP, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(BadInput, match=r"precision|limit"):
        FeatureCache(tmp_path, small_headclip, **options)


def test_the_limit_holds(small_headclip: HeadCLIP, batch: Batch, tmp_path: Path) -> None:
    size = 26 * 128 * 4
    cache = FeatureCache(tmp_path, small_headclip, limit=int(1.5 * size))
    cache.check_room(1)
    with pytest.raises(OutputNotWritable, match=r"features of 3 images need .* more"):
        cache.check_room(3)
    with pytest.raises(OutputNotWritable, match="are full; make room"):
        cache.batch(batch["image"])
    assert sum(f.stat().st_size for f in cache.folder.iterdir()) <= 1.5 * size
    again = FeatureCache(tmp_path, small_headclip, limit=int(1.5 * size))
    again.batch(batch["image"][:1])  # what is there can be used
    assert again.found == 1
    again.check_room(1)


def test_a_full_disk_is_told_and_leaves_no_rest(
    small_headclip: HeadCLIP, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path, small_headclip)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(frozen_features.os, "replace", full)
    with pytest.raises(OutputNotWritable, match="No space left on device"):
        cache.batch(batch["image"])
    assert list(cache.folder.iterdir()) == []


def test_room_is_asked_of_the_disk(
    small_headclip: HeadCLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 26 * 128 * 4)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    cache = FeatureCache(tmp_path / "not" / "yet", small_headclip)
    cache.check_room(5)
    with pytest.raises(OutputNotWritable, match="features of 6 images"):
        cache.check_room(6)
