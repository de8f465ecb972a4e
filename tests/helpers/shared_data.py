"""Real scans and reference numbers, which lie beside the repository where they are there at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Shared = Callable[..., Path]


def shared_path(name: str = "", files: int = 1) -> Path:
    """Return what is called so in the folder ``MEDZSAD_SHARED`` (default: ``../shared``), or skip the test.

    Args:
        name: a file or folder in it, such as ``data/brainmri``.
        files: how many files a folder holds at least, in whatever depth.
    """
    root = Path(os.environ.get("MEDZSAD_SHARED", Path(__file__).parents[3] / "shared"))
    path = root / name
    if not path.exists():
        pytest.skip(f"no real data: {path} is not there (MEDZSAD_SHARED says where to look)")
    if path.is_dir():
        there = sum(1 for inner in path.rglob("*") if inner.is_file())
        if there < files:
            pytest.skip(f"no real data: {path} holds {there} files, not {files}")
    return path.resolve()
