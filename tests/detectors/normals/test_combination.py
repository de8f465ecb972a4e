"""A detector together with a profile of normals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from normal_images import save, save_volume, texture, with_blob

import medzsad
from medzsad.detectors.checkpoint import save_checkpoint
from medzsad.detectors.normals.combination import (
    TOP_PART,
    Combined,
    highest_evidence,
    joined_maps,
    joined_score,
    log_odds,
)
from medzsad.errors import BadInput, ModelNotReady
from medzsad.evaluation.cache import PredictionCache
from medzsad.evaluation.image_sets import predict_images
from medzsad.training.normals import fit_normals

SIZE = 128


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normals")
    normals = [save(folder / f"{seed}.png", texture(seed)) for seed in (1, 2)]
    path = folder / "texture.normals"
    save_checkpoint(fit_normals(normals, image_size=SIZE).to_checkpoint(), path)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return save(tmp_path / "bad.png", with_blob(texture(9))[0])


def test_odds_are_multiplied() -> None:
    first, second = torch.tensor([0.5, 0.2, 0.9]), torch.tensor([0.7, 0.5, 0.9])
    torch.testing.assert_close(joined_maps(first, second), torch.tensor([0.7, 0.2, 81 / 82]))
    ends = torch.tensor([0.0, 1.0])
    assert joined_maps(ends, ends).isfinite().all()


def test_the_highest_evidence_is_of_the_pixels_that_count() -> None:
    values = torch.linspace(0.01, 0.99, 200)
    inside = values < 0.5
    count = round(TOP_PART * int(inside.sum()))
    expected = log_odds(values[inside][-count:]).mean()
    assert torch.equal(highest_evidence(values, inside), expected)
    assert highest_evidence(values, values > 2) > expected  # where nothing counts, all does
    assert joined_score(torch.tensor(0.5), torch.tensor(0.0)) == 0.5


def test_an_image_gets_the_odds_of_both(stored: Path, bad: Path) -> None:
    both = medzsad.predict(bad, "brightness", normals=stored)
    combined = medzsad.load_detector("brightness", normals=stored)
    assert isinstance(combined, Combined)
    first, second = (medzsad.predict(bad, part).anomaly_map for part in combined.parts)
    joined = joined_maps(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    np.testing.assert_allclose(both.anomaly_map, joined * (first > 0), atol=1e-6)
    assert both.settings["model"] == "brightness + texture"
    assert both.score > medzsad.predict(save(bad.with_name("good.png"), texture(8)), combined).score
    # As an evaluation sees it.
    cache = PredictionCache(bad.parent / "cache", combined, {})
    for _ in range(2):
        (found,) = predict_images(combined, [bad], framing="foreground", cache=cache)
        np.testing.assert_allclose(found.anomaly_map, both.anomaly_map[:, :, 0].T, atol=1e-6)
        assert found.score == pytest.approx(both.score, abs=1e-5)
    assert PredictionCache(bad.parent / "cache", combined, {}).parts[0].get(cache.key_of(bad)) is not None
    alone = PredictionCache(bad.parent / "cache", medzsad.load_detector("brightness"), {})
    assert alone.get(cache.key_of(bad)) is not None  # what the detector said is known to it alone, too


def test_images_given_at_once_are_joined_alike(stored: Path) -> None:
    combined = medzsad.load_detector("brightness", normals=stored)
    images = torch.rand(2, 3, 48, 56, generator=torch.Generator().manual_seed(0))
    found = combined(images)
    first, second = (part(images) for part in combined.parts)
    maps = joined_maps(first.anomaly_map, second.anomaly_map)
    torch.testing.assert_close(found.anomaly_map, maps)
    highest = highest_evidence(maps[1], images[1].amax(0) > 0)
    torch.testing.assert_close(found.image_score[1], joined_score(first.image_score[1], highest))
    assert combined.threshold == combined.parts[0].threshold


def test_a_volume_keeps_the_map_of_its_detector_and_gets_joined_scores(stored: Path, tmp_path: Path) -> None:
    scan = save_volume(tmp_path / "scan.nii.gz", 1, blob=True)
    options = {"roi": "whole", "volume_rules": "off", "modality": "grey"}
    combined = medzsad.load_detector("medzsad-mini", normals=stored)
    both = medzsad.predict(scan, combined, **options)
    own, beside = (medzsad.predict(scan, part, **options) for part in combined.parts)
    maps = [torch.from_numpy(part.anomaly_map) for part in (own, beside)]
    joined = joined_maps(*maps) * (maps[0] > 0)
    np.testing.assert_array_equal(both.anomaly_map, own.anomaly_map)
    number = len(both.slice_scores) // 2
    index = both.slice_scores[number].index
    inside = torch.from_numpy(own.anomaly_map[:, :, index] > 0)
    highest = highest_evidence(joined[:, :, index], inside)
    score = joined_score(torch.tensor(own.slice_scores[number].score), highest)
    assert both.slice_scores[number].score == pytest.approx(float(score), abs=1e-5)
    assert both.brain is not None  # of the part that marks it


def test_a_combination_is_neither_stored_nor_a_graph(stored: Path) -> None:
    combined = medzsad.load_detector("brightness", normals=stored)
    with pytest.raises(ModelNotReady, match="store its parts"):
        combined.to_checkpoint()
    with pytest.raises(BadInput, match="no graph"):
        combined.check_graph()


def test_weights_beside_a_model_without_clip_are_the_profiles(stored: Path, tmp_path: Path) -> None:
    weights = Path(medzsad.__file__).parent / "weights" / "efficientnet-lite0.safetensors"
    assert isinstance(medzsad.load_detector("brightness", normals=stored, clip_weights=weights), Combined)
    with pytest.raises(ModelNotReady, match=r"none\.safetensors"):
        medzsad.load_detector("brightness", normals=stored, clip_weights=tmp_path / "none.safetensors")
