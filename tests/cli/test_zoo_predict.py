"""Every detector of the zoo predicts, with small random weights that take the same way as real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml

from medzsad.zoo.catalogue import weights_folder
from medzsad.zoo.download import hash_file

CATALOGUE: dict[str, Any] = yaml.safe_load((weights_folder().parent / "zoo" / "zoo.yaml").read_text())
IMAGE_SIZE = 70  # a multiple of the small CLIP's patches of 14, and not its native size


@pytest.fixture
def mirror(file_server, small_weights, cache_dir, tmp_path, monkeypatch) -> None:
    """The package's catalogue with every file replaced by a small one of the same kind, on a server here."""
    originals = {
        "clip": small_weights.clip,
        "anomalyclip": small_weights.anomalyclip,
        "adaclip": small_weights.adaclip,
    }
    files = {}
    for name, fields in CATALOGUE["files"].items():
        if fields["kind"] == "features":  # of no model: tests/zoo/test_loading.py
            continue
        path = originals[fields["kind"]]
        hashes = hash_file(path)
        file_server.files[f"/{name}/{path.name}"] = path.read_bytes()
        known_by = "git_blob" if "git_blob" in fields else "sha256"
        files[name] = {
            "url": f"{file_server.url}/{name}/{path.name}",
            known_by: getattr(hashes, known_by)[: len(fields[known_by])],
        }
        if fields["kind"] == "clip":
            files[name]["architecture"] = small_weights.architecture
    models = {
        name: {"settings": {**fields.get("settings", {}), "image_size": IMAGE_SIZE}}
        for name, fields in CATALOGUE["models"].items()
        if "clip" in fields
    }
    (tmp_path / "mirror.yaml").write_text(yaml.safe_dump({"files": files, "models": models}))
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(tmp_path / "mirror.yaml"))


@pytest.fixture
def scan(tmp_path) -> Path:
    """A small volume of anisotropic voxels with one bright blob."""
    x, y, _ = np.meshgrid(np.arange(32), np.arange(28), np.arange(3), indexing="ij")
    voxels = np.random.default_rng(0).normal(100, 10, x.shape)
    voxels[(x - 20) ** 2 + (y - 12) ** 2 < 16] += 80
    path = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), np.diag([2.0, 2.0, 5.0, 1.0])), path)
    return path


@pytest.mark.parametrize("name", CATALOGUE["models"])
def test_every_model_is_fetched_and_predicts(name, mirror, scan, medzsad, file_server, tmp_path) -> None:
    fields = CATALOGUE["models"][name]
    parts = [fields[part] for part in ("clip", "adapter") if part in fields]
    if parts:
        code, _, err = medzsad("predict", scan, "-m", name, "-o", tmp_path / "out", "-q")
        assert code == 2
        assert f"medzsad models fetch {name}" in err
        assert file_server.requests == []  # predicting downloads nothing
    code, _, err = medzsad("models", "fetch", name)
    assert code == 0, err
    assert sorted(path.split("/")[1] for path, _, _ in file_server.requests) == sorted(parts)

    code, out, err = medzsad(
        "predict", scan, "-m", name, "-o", tmp_path / "out", "--device", "cpu", "--json", "-q"
    )
    assert code == 0, err
    report = json.loads(out)["scans"][0]
    assert report["model"] == name
    assert report["settings"]["method"] == fields["method"]
    if parts:
        assert report["settings"]["detector"]["image_size"] == IMAGE_SIZE
    image = nibabel.load(report["files"]["anomaly"])
    volume = nibabel.load(scan)
    anomaly = np.asanyarray(image.dataobj)
    assert image.shape == volume.shape
    np.testing.assert_allclose(image.affine, volume.affine)
    assert np.isfinite(anomaly).all()
    assert 0 <= anomaly.min() < anomaly.max() <= 1
    assert 0 <= report["score"] <= 1


def test_the_organ_reaches_the_texts(mirror, scan, medzsad, tmp_path) -> None:
    scores = {}
    assert medzsad("models", "fetch", "winclip-vit-b-16")[0] == 0
    for options in ((), ("--organ", "brain")):
        code, out, err = medzsad(
            "predict", scan, "-m", "winclip-vit-b-16", "-o", tmp_path / "out", "--json", "-q", *options
        )
        assert code == 0, err
        scores[options] = json.loads(out)["scans"][0]["score"]
    assert len(set(scores.values())) == 2
    code, _, err = medzsad("predict", scan, "--organ", "brain", "-o", tmp_path / "out", "-q")
    assert code == 2
    assert "object-agnostic" in err
