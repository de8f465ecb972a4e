"""Features of scans on their way from a worker of a cluster to the cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medzsad.batch import mutual_features
from medzsad.batch.manifest import ScanItem
from medzsad.batch.mutual_features import BEGUN, RayCollector, collect_on_ray, features_of
from medzsad.batch.predictor import PredictSettings
from medzsad.batch.store import open_store
from medzsad.batch.watch import Watch
from medzsad.batch.worker import Job, Worker
from medzsad.detectors.mutual.settings import MutualSettings
from medzsad.errors import OutputNotWritable
from medzsad.inference.cohort import CohortFeatures

SMALL = MutualSettings(image_size=64)


@pytest.fixture
def items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ScanItem]:
    """Two pictures, and a file that is none."""
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(random.integers(20, 255, (48, 48), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    return [ScanItem(name, str(tmp_path / f"{name}.png")) for name in "abc"]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(PredictSettings(device="cpu"), "", str(tmp_path / "out"))


def answers_here(rows, worker, arguments, job, address, jobs):
    """What a cluster of one worker does, without one: rows and answers go through JSON, as there."""
    assert address == "host:1"
    collector = worker(job, *arguments)
    for row in rows.values():
        yield json.loads(collector(row)["row"])


def test_features_of_a_worker_are_those_made_here(items, job, monkeypatch, tmp_path):
    monkeypatch.setattr(mutual_features, "answers_on_ray", answers_here)
    features = CohortFeatures(SMALL, device="cpu")
    missing = {f"key{item.id}": item for item in items}
    told = dict(collect_on_ray(missing, features, job, "host:1", None))
    assert told["keya"] == told["keyb"] == ""
    assert "c.png" in told["keyc"]
    assert [features.ready(key) for key in missing] == [True, True, False]
    here, modality = features_of(items[0], features.collector, Worker(job), Watch())
    there = load_file(features.store.path("keya"))
    assert features.modality("keya") == modality
    assert sorted(here) == sorted(there)
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert not list((tmp_path / "out").glob("features/*"))


def test_a_place_of_one_machine_alone_is_refused(items, job):
    row = {"key": "k", "item": json.dumps(asdict(items[0]))}
    answer = json.loads(RayCollector(job, SMALL)(row)["row"])
    assert answer["fatal"] == OutputNotWritable.__name__
    assert "not the same place" in answer["message"]
    store = open_store(job.out)
    store.prepare()
    store.write(BEGUN, b"")
    assert "reason" in json.loads(RayCollector(job, SMALL)(row)["row"])
