"""The detector that knows normal images, alone and in combinations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from normal_images import save, save_volume, texture, with_blob
from sklearn.metrics import roc_auc_score

import medzsad
from medzsad.detectors.checkpoint import Checkpoint, save_checkpoint
from medzsad.detectors.normals.card import card_of
from medzsad.detectors.normals.model import EVIDENCE, MOST_EVIDENCE, NEUTRAL, NormalsDetector, distances
from medzsad.detectors.references import Brightness
from medzsad.errors import BadInput, ModelNotReady
from medzsad.inference.slicewise import relative_heights
from medzsad.scans.slices import Plane
from medzsad.training.normals import fit_normals

SIZE = 128


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> NormalsDetector:
    folder = tmp_path_factory.mktemp("normals")
    return fit_normals([save(folder / f"{seed}.png", texture(seed)) for seed in (1, 2)], image_size=SIZE)


@pytest.fixture(scope="module")
def stored(profile: NormalsDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "texture.normals"
    save_checkpoint(profile.to_checkpoint(), path)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return save(tmp_path / "bad.png", with_blob(texture(9))[0])


def test_a_blob_is_found_after_two_normals(profile: NormalsDetector, bad: Path, tmp_path: Path) -> None:
    result = medzsad.predict(bad, profile)
    mask = with_blob(texture(9))[1]
    assert roc_auc_score(mask.ravel(), result.anomaly_map[:, :, 0].T.ravel()) > 0.95
    good = medzsad.predict(save(tmp_path / "good.png", texture(8)), profile)
    assert result.score > 0.5 > good.score


def test_stored_and_loaded_is_equal(profile: NormalsDetector, stored: Path, bad: Path) -> None:
    loaded = medzsad.load_detector(stored)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for before, after in zip(profile(images), loaded(images), strict=True):
        assert torch.equal(before, after)
    assert loaded.name == "texture"
    assert loaded.settings == profile.settings
    other = stored.with_name("other.bin")  # known by its content
    other.write_bytes(stored.read_bytes())
    assert medzsad.load_detector(other).method == "normals"


def test_as_evidence_a_profile_tells_odds_by_the_layers_that_stand_for_it(profile: NormalsDetector) -> None:
    evidence = profile.as_evidence()
    assert evidence.settings != profile.settings
    images = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    layer = profile.profile[2].profile  # type: ignore[union-attr]
    expected = distances([layer], [profile.features(images)[2]], SIZE, nearest_only=True)
    found = evidence(images).anomaly_map
    evidence_map = (EVIDENCE * (expected - NEUTRAL)).clamp(-MOST_EVIDENCE, MOST_EVIDENCE)
    torch.testing.assert_close(found, torch.sigmoid(evidence_map), atol=1e-5, rtol=0)
    assert 1 / 11 - 1e-5 <= float(found.min()) <= float(found.max()) <= 10 / 11 + 1e-5
    assert not torch.equal(profile(images).anomaly_map, found)  # which is as it was


def test_another_modality_is_refused_unless_forced(stored: Path, tmp_path: Path) -> None:
    scan = save_volume(tmp_path / "scan.nii.gz", 1)
    with pytest.raises(BadInput, match=r"is mr, but the normals of texture are grey.*any_modality"):
        medzsad.predict(scan, str(stored), modality="mr")
    with pytest.raises(BadInput, match="is mr, but the normals"):
        medzsad.predict(scan, "brightness", normals=stored, modality="mr")
    result = medzsad.predict(scan, str(stored), modality="mr", any_modality=True)
    assert result.anomaly_map.max() > 0


def test_another_profile_is_another_key(profile: NormalsDetector) -> None:
    other = NormalsDetector(
        profile.features,
        [layer.profile for layer in profile.profile],  # type: ignore[union-attr]
        limits=(2.0, 2.0),
        record=profile.record,
    )
    assert other.digest != profile.digest
    assert other.settings != profile.settings


def test_what_is_no_profile_is_refused(stored: Path, tmp_path: Path, profile: NormalsDetector) -> None:
    cut = tmp_path / "cut.normals"
    cut.write_bytes(stored.read_bytes()[:-100])
    text = tmp_path / "text.normals"
    text.write_text("normal")
    for path, words in (
        (cut, "cut short"),
        (text, "not a readable safetensors"),
        (tmp_path / "no", "no such"),
    ):
        with pytest.raises(ModelNotReady, match=words):
            medzsad.load_detector("brightness", normals=path)
        with pytest.raises(ModelNotReady):
            card_of(path)
    other = tmp_path / "other.safetensors"
    save_checkpoint(Brightness().to_checkpoint(), other)
    with pytest.raises(ModelNotReady, match="not a profile of normals"):
        medzsad.load_detector("medzsad-mini", normals=other)
    checkpoint = profile.to_checkpoint()
    fewer = {name: t for name, t in checkpoint.tensors.items() if not name.startswith("layers.3.")}
    save_checkpoint(Checkpoint("normals", fewer, checkpoint.settings, checkpoint.training), other)
    with pytest.raises(ModelNotReady, match="made of other features"):
        medzsad.load_detector(other)
    with pytest.raises(BadInput, match="no graph"):
        profile.check_graph()


@pytest.mark.parametrize(
    ("tensors", "settings", "words"),
    [
        ({"layers.0.coreset": torch.rand(3, 7)}, {}, "coreset of layer 0 has the shape"),
        ({"layers.0.coreset": torch.zeros(0, 40)}, {}, "coreset of layer 0 has the shape"),
        ({"layers.1.mean": torch.tensor(1.0)}, {}, "of layer 1 has the shape"),
        ({"layers.0.spread": torch.zeros(2)}, {}, "the spread of layer 0 is not positive"),
        ({"layers.0.coreset": torch.ones(5, 40, dtype=torch.int64)}, {}, "floating-point"),
        ({"extra": torch.rand(3)}, {}, "its tensors are not mean"),
        ({}, {"limits": [0, 1]}, "not two positive numbers"),
        ({}, {"limits": "ab"}, "not two positive numbers"),
    ],
)
def test_a_profile_that_does_not_fit_itself_is_refused(
    profile: NormalsDetector, tmp_path: Path, tensors: dict, settings: dict, words: str
) -> None:
    checkpoint = profile.to_checkpoint()
    path = tmp_path / "bad.normals"
    content = checkpoint.tensors | tensors, checkpoint.settings | settings
    save_checkpoint(Checkpoint("normals", *content, checkpoint.training), path)
    for use in (medzsad.load_detector, card_of):
        with pytest.raises(ModelNotReady, match=words) as refused:
            use(path)
        assert str(path) in str(refused.value)


def test_heights_are_relative_to_the_foreground() -> None:
    foreground = np.zeros((3, 3, 8), bool)
    foreground[:, :, 2:7] = True
    assert relative_heights(foreground, Plane.AXIAL).tolist() == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]


def test_a_profile_with_heights_is_told_them(tmp_path: Path) -> None:
    volumes = [save_volume(tmp_path / f"{seed}.nii.gz", seed) for seed in (1, 2)]
    weighted = fit_normals(volumes, image_size=SIZE, height_weight=5.0)
    assert weighted.uses_heights
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    low, high = (weighted.at_heights(torch.full((2,), height))(images) for height in (0.0, 1.0))
    assert not torch.equal(low.anomaly_map, high.anomaly_map)
    assert weighted.heights is None  # the copies have them
    path = tmp_path / "weighted.normals"
    save_checkpoint(weighted.to_checkpoint(), path)
    scan = save_volume(tmp_path / "scan.nii.gz", 3, blob=True)
    maps = [medzsad.predict(scan, d).anomaly_map for d in (weighted, medzsad.load_detector(path))]
    np.testing.assert_array_equal(*maps)
    weighted.uses_heights = False
    assert not np.array_equal(medzsad.predict(scan, weighted).anomaly_map, maps[0])
