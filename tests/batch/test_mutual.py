"""A cohort scores itself, from files to results."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medzsad.batch.predictor import PredictSettings
from medzsad.batch.run import predict_many, run_cohort
from medzsad.detectors.mutual.settings import MutualSettings
from medzsad.errors import BadInput, ModelNotReady
from medzsad.inference import cohort
from medzsad.storage.hashing import Shard

SMALL = MutualSettings(image_size=128)
ODD = 3  # which image has the blob, at rows and columns 20 to 39 of 96
PLAIN = {"overlay": "none", "device": "cpu"}


def texture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (96, 96))
    return np.clip(120 + 140 * gaussian_filter(noise, 1.5), 5, 250)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six textures, one of them with a blob."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        pixels = texture(number)
        if number == ODD:
            # Of the textures' own grey levels, so that the image is not shown otherwise.
            pixels[20:40, 20:40] = np.where(np.indices((20, 20)).sum(0) % 6 < 3, 80, 160)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"tile{number}.png")
    return folder


def volume(path: Path, seed: int, *, odd: bool = False) -> Path:
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in (40, 48, 8)), indexing="ij")
    voxels = np.where(x**2 + y**2 < 0.8, 300 + 120 * np.sin(6 * x) * z, 0)
    voxels += np.random.default_rng(seed).normal(0, 4, voxels.shape) * (voxels > 0)
    if odd:
        voxels[14:22, 20:30, 3:6] = np.where(np.indices((8, 10, 3)).sum(0) % 4 < 2, 190, 400)
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.diag([-2.0, 2, 4, 1])), path)
    return path


def test_the_odd_image_stands_out(images, tmp_path):
    outcome = predict_many([images], tmp_path / "out", mutual=SMALL, report=True, device="cpu")
    assert outcome.done == 6
    reports = {one.report["name"]: one.report for one in outcome.results()}
    scores = {name: report["score"] for name, report in reports.items()}
    assert max(scores, key=scores.__getitem__) == f"tile{ODD}"
    assert scores[f"tile{ODD}"] > 0.5 > sorted(scores.values())[2]
    report = reports[f"tile{ODD}"]
    assert report["model"] == "mutual (lite0)"
    assert report["settings"]["detector"]["scans"] == 6
    pixels = np.asarray(Image.open(tmp_path / "out" / f"tile{ODD}_anomaly.png"))
    anomaly_map = pixels / np.iinfo(pixels.dtype).max
    assert anomaly_map.shape == (96, 96)
    inside = anomaly_map[20:40, 20:40].mean()
    assert inside > 0.5
    assert inside > np.median(anomaly_map), (inside, np.median(anomaly_map))
    assert (tmp_path / "out" / "index.html").is_file()


def test_a_run_that_was_stopped_goes_on(images, tmp_path, monkeypatch):
    """Killed at the fourth scan, then at the third layer: nothing that was done is done again."""
    seen = []
    take, layer = cohort.FeatureCollector.take, cohort._score_layer

    def stop_at_fourth(self, planes=()):
        seen.append("scan")
        if len(seen) == 4:
            raise KeyboardInterrupt
        return take(self, planes)

    monkeypatch.setattr(cohort.FeatureCollector, "take", stop_at_fourth)
    with pytest.raises(KeyboardInterrupt):
        predict_many([images], tmp_path / "out", mutual=SMALL, **PLAIN)
    assert not (tmp_path / "out").exists()
    layers = []

    def stop_at_third(images, name, *rest):
        layers.append(name)
        if len(layers) == 3:
            raise KeyboardInterrupt
        return layer(images, name, *rest)

    monkeypatch.setattr(cohort, "_score_layer", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        predict_many([images], tmp_path / "out", mutual=SMALL, **PLAIN)
    assert len(seen) == 4 + 3
    first = predict_many([images], tmp_path / "out", mutual=SMALL, **PLAIN)
    assert layers == ["layer0", "layer1", "layer2", "layer2", "layer3"]
    assert first.done == 6
    assert len(seen) == 7
    again = predict_many([images], tmp_path / "out", mutual=SMALL, **PLAIN)
    assert (again.before, again.done) == (6, 6)
    assert len(layers) == 5

    whole = {r.report["name"]: r.report["score"] for r in first.results()}
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "other"))
    anew = predict_many([images], tmp_path / "anew", mutual=SMALL, **PLAIN)
    assert {r.report["name"]: r.report["score"] for r in anew.results()} == whole


def test_one_more_scan_makes_another_cohort(images, tmp_path):
    predict_many([images], tmp_path / "out", mutual=SMALL, **PLAIN)
    Image.fromarray(texture(9).astype(np.uint8)).save(images / "tile9.png")
    outcome = predict_many([images], tmp_path / "out", mutual=SMALL, **PLAIN)
    assert (outcome.before, outcome.done) == (0, 7)


def test_volumes_in_their_own_space(tmp_path):
    for seed in range(4):
        volume(tmp_path / "in" / f"head{seed}.nii.gz", seed, odd=seed == 2)
    outcome = predict_many([tmp_path / "in"], tmp_path / "out", mutual=SMALL, modality="mr", **PLAIN)
    scores = {one.report["name"]: one.report["score"] for one in outcome.results()}
    assert max(scores, key=scores.__getitem__) == "head2"
    scan = nib.load(tmp_path / "in" / "head2.nii.gz")
    anomaly_map = nib.load(tmp_path / "out" / "head2_anomaly.nii.gz")
    assert anomaly_map.shape == scan.shape
    assert np.allclose(anomaly_map.affine, scan.affine)
    values = anomaly_map.get_fdata()
    inside = values[14:22, 20:30, 3:6].mean()
    assert inside > 0.5
    assert inside > 3 * np.median(values[scan.get_fdata() > 0])


def test_all_planes(tmp_path):
    for seed in range(3):
        volume(tmp_path / "in" / f"head{seed}.nii.gz", seed)
    settings = MutualSettings(image_size=64, degrees=(1,))
    outcome = predict_many([tmp_path / "in"], tmp_path / "out", mutual=settings, plane="all", **PLAIN)
    assert outcome.done == 3
    counts = {len(one.report["slices"]) for one in outcome.results()}
    assert len(counts) == 1
    assert counts.pop() > 48  # more than any single plane has


def test_a_cohort_in_a_process_of_its_own(images, tmp_path):
    """What cannot be read fails in the run, and is not of the cohort."""
    (images / "broken.png").write_bytes(b"no image")
    settings = PredictSettings(**PLAIN)
    outcome = run_cohort([str(images)], tmp_path / "out", settings, jobs=0, mutual=SMALL)
    assert (outcome.done, outcome.failed, outcome.exit_code) == (6, 1, 2)
    there = json.loads((tmp_path / "out" / "cohort.json").read_text())
    assert there["model"] == "mutual (lite0).safetensors"


def test_what_cannot_be_compared(images, tmp_path):
    def refused(*inputs: Path, settings: MutualSettings = SMALL, **more: object) -> str:
        with pytest.raises((BadInput, ModelNotReady)) as caught:
            predict_many(inputs, tmp_path / "out", mutual=settings, **PLAIN, **more)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    two = [images / "tile0.png", images / "tile1.png"]
    assert "takes 3 or more; there are 2" in refused(*two)
    (tmp_path / "broken.png").write_bytes(b"no image")
    text = refused(*two, tmp_path / "broken.png")
    assert "2 of 3 can be used" in text
    assert "broken.png" in text
    (tmp_path / "copy.png").write_bytes(two[0].read_bytes())
    assert "copies of others: 1" in refused(*two, tmp_path / "copy.png")
    heads = [volume(tmp_path / "heads" / f"head{seed}.nii.gz", seed) for seed in range(2)]
    assert "2D images and volumes" in refused(*two, *heads, modality="mr")
    assert "unknown features" in refused(images, settings=MutualSettings(features="none"))
    with pytest.raises(BadInput, match="degrees"):
        MutualSettings(degrees=(2,))
    with pytest.raises(BadInput, match="`jobs`"):
        run_cohort([str(images)], tmp_path / "out", PredictSettings(), shard=Shard(1, 2), mutual=SMALL)


def test_command_line(images, tmp_path, medzsad):
    code, out, err = medzsad("predict", images, "--mutual", "-o", tmp_path / "out", "--overlay", "none")
    assert code == 0, err
    assert "tile5" in out
    for options, word in (
        (("--mutual", "-m", "brightness"), "--model"),
        (("--height-window", "0.1"), "--mutual"),
        (("--mutual", "--shard", "1/2"), "--shard"),
    ):
        code, _, err = medzsad("predict", images, *options, "-o", tmp_path / "other")
        assert code == 2
        assert word in err
        assert len(err.strip().splitlines()) == 1
        assert not (tmp_path / "other").exists()
