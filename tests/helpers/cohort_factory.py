"""Small scans of a cohort, some of which cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medzsad.batch.predictor import PredictSettings

FAST = PredictSettings(model="brightness", overlay="none")


def write_scan(path: Path, seed: int, shape: tuple[int, int, int] = (16, 16, 3)) -> Path:
    """A NIfTI file of noise with a bright box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).random(shape).astype(np.float32)
    voxels[4:9, 4:9, 1] += 1
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 4, 1])), path)
    return path


def table_rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of a Parquet file, read in this thread: Arrow's own would live on beside all later tests."""
    import pyarrow
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content), pre_buffer=False) as file:
        return file.read(use_threads=False).to_pylist()


def write_scans(folder: Path, good: int, bad: int = 0) -> Path:
    """``good`` scans and ``bad`` files that only look like some."""
    for number in range(good):
        write_scan(folder / f"case{number:02}.nii.gz", number)
    for number in range(bad):
        (folder / f"corrupt{number}.nii.gz").write_bytes(b"\x1f\x8b no scan" * number)
    return folder


def outcomes(out: Path) -> dict[str, dict[str, Any]]:
    """What is on disk of each scan."""
    return {path.parent.name: json.loads(path.read_text()) for path in out.glob("scans/*/*/outcome.json")}


def times(out: Path) -> dict[str, int]:
    """When each file of the scans was written."""
    return {
        str(path.relative_to(out)): path.stat().st_mtime_ns
        for path in out.rglob("scans/*/*/*")
        if path.is_file()
    }
