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


@pytest.fixture
def scan(tmp_path) -> Path:
    voxels = np.random.default_rng(0).normal(100, 20, (24, 24, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "scan.nii")
    return tmp_path / "scan.nii"


def start(place: Path, *arguments: object, full_after: int | None = None) -> subprocess.Popen:
    def limit() -> None:
        if full_after is not None:  # as a full disk: writing on fails with an OSError
            resource.setrlimit(resource.RLIMIT_FSIZE, (full_after, full_after))

    return subprocess.Popen(
        [sys.executable, "-m", "medzsad", *map(str, arguments)],
        cwd=place,
        env={**os.environ, "MEDZSAD_CACHE": str(place / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def the_refusal(code: int, err: str) -> str:
    """Return the one line that says why, after exit code 2."""
    assert code == 2, err
    lines = [line for line in err.splitlines() if line.startswith(("error:", "Error:"))]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert "internal error" not in err
    return lines[0]


def leftovers(folder: Path) -> list[str]:
    return [
        path.name for path in folder.rglob("*") if path.name.startswith(".medzsad-") or "writing" in path.name
    ]


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_written(scan, tmp_path) -> None:
    processes: list[Any] = [
        start(tmp_path, "predict", scan, "-o", "out", "--device", "cpu", full_after=1000),
        start(tmp_path, "predict", scan, "-o", "many", "--jobs", "0", "--device", "cpu", full_after=300),
    ]
    (_, err), _ = (process.communicate(timeout=300) for process in processes)
    line = the_refusal(processes[0].returncode, err)
    assert "large" in line or "write" in line
    assert processes[1].returncode == 2
    for folder in ("out", "many"):
        assert leftovers(tmp_path / folder) == []
        assert not list((tmp_path / folder).rglob("scan*.nii.gz"))


def test_a_cache_that_cannot_be_written(medzsad, scan, tmp_path, small_weights, monkeypatch) -> None:
    monkeypatch.setenv("MEDZSAD_CACHE", "/proc/nothing")
    code, _, err = medzsad("models", "import", small_weights.anomalyclip, "--as", "ours")
    assert "/proc/nothing" in the_refusal(code, err)
    code, _, err = medzsad("predict", scan, "-o", tmp_path / "out", "--device", "cpu")
    assert code == 0, err


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "options",
    [
        ("--device", "meta"),
        ("--window", "1,1e308"),
        ("--batch-size", "1000000000", "--device", "cpu"),
        ("--jobs", "10000"),
    ],
)
def test_absurd_options(medzsad, scan, tmp_path, options) -> None:
    code, _, err = medzsad("predict", scan, "-o", tmp_path / "out", *options)
    the_refusal(code, err)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.nii.gz"))


def test_a_size_that_no_memory_holds(medzsad, tmp_path) -> None:
    code, _, err = medzsad("evaluate", "--dataset", "folder", "--root", tmp_path, "--size", "99999")
    the_refusal(code, err)


def test_a_home_folder_that_is_not_there(medzsad, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("HOME")
    code, _, err = medzsad("predict", "~nobody-of-that-name/x.nii", "-o", tmp_path / "out")
    the_refusal(code, err)
    assert not (tmp_path / "out").exists()
