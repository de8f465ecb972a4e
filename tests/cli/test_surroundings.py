"""A full disk, a cache that cannot be written, runs at the same time, and a machine without a home folder."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

pytestmark = pytest.mark.slow  # each starts the command line anew


@pytest.fixture
def scan(tmp_path) -> Path:
    voxels = np.random.default_rng(0).normal(100, 20, (24, 24, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "scan.nii")
    return tmp_path / "scan.nii"


def start(
    place: Path, *arguments: object, full_after: int | None = None, **variables: str | None
) -> subprocess.Popen:
    def limit() -> None:
        if full_after is not None:  # as a full disk: writing on fails with an OSError
            resource.setrlimit(resource.RLIMIT_FSIZE, (full_after, full_after))

    environment = {**os.environ, "MEDZSAD_CACHE": str(place / "cache")} | variables
    return subprocess.Popen(
        [sys.executable, "-m", "medzsad", *map(str, arguments)],
        cwd=place,
        env={name: value for name, value in environment.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def refused(process: subprocess.Popen) -> str:
    """Wait for a refusal: exit code 2 and one line that says why."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2, out + err
    lines = [line for line in err.splitlines() if line.startswith(("error:", "Error:"))]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert "internal error" not in err
    return lines[0]


def leftovers(folder: Path) -> list[str]:
    return [
        path.name for path in folder.rglob("*") if path.name.startswith(".medzsad-") or "writing" in path.name
    ]


def test_a_full_disk_leaves_nothing_half_written(scan, tmp_path) -> None:
    processes: list[Any] = [
        start(tmp_path, "predict", scan, "-o", "out", "--device", "cpu", full_after=1000),
        start(tmp_path, "predict", scan, "-o", "many", "--jobs", "0", "--device", "cpu", full_after=300),
    ]
    assert "large" in refused(processes[0]) or "write" in refused(processes[0])
    processes[1].communicate(timeout=300)
    assert processes[1].returncode == 2
    for folder in ("out", "many"):
        assert leftovers(tmp_path / folder) == []
        assert not list((tmp_path / folder).rglob("scan*.nii.gz"))


def test_a_cache_that_cannot_be_written(scan, tmp_path, small_weights) -> None:
    cache = {"MEDZSAD_CACHE": "/proc/nothing"}
    imported = start(tmp_path, "models", "import", small_weights.anomalyclip, "--as", "ours", **cache)
    predicted = start(tmp_path, "predict", scan, "-o", "out", "--device", "cpu", **cache)
    assert "/proc/nothing" in refused(imported)
    out, err = predicted.communicate(timeout=300)
    assert predicted.returncode == 0, out + err


def test_two_runs_into_one_folder_and_two_imports_of_one_name(scan, tmp_path, small_weights) -> None:
    runs = [start(tmp_path, "predict", scan, "-o", "out", "--report", "--device", "cpu") for _ in range(2)]
    runs += [start(tmp_path, "models", "import", small_weights.adaclip, "--as", "ours") for _ in range(2)]
    for process in runs:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    assert json.loads((tmp_path / "out" / "scan.json").read_text())["score"] > 0
    assert nibabel.load(tmp_path / "out" / "scan_anomaly.nii.gz").get_fdata().shape == (24, 24, 8)
    assert leftovers(tmp_path) == []
    assert (tmp_path / "cache" / "catalogue.yaml").read_text().count("ours:") == 2  # a file and a model


def test_a_home_folder_that_is_not_there_and_other_absurd_options(scan, tmp_path) -> None:
    processes = [
        start(tmp_path, "predict", "~nobody-of-that-name/x.nii", "-o", "out", HOME=None),
        start(tmp_path, "predict", scan, "-o", "out", "--device", "meta"),
        start(tmp_path, "predict", scan, "-o", "out", "--window", "1,1e308"),
        start(tmp_path, "predict", scan, "-o", "out", "--batch-size", "1000000000", "--device", "cpu"),
        start(tmp_path, "predict", scan, "-o", "out", "--jobs", "10000"),
        start(tmp_path, "evaluate", "--dataset", "folder", "--root", tmp_path, "--size", "99999"),
    ]
    for process in processes:
        refused(process)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.nii.gz"))
