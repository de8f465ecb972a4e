"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real scans and reference numbers (``MEDZSAD_SHARED``, default ``../shared``)."""
    folder = Path(os.environ.get("MEDZSAD_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set MEDZSAD_SHARED)")
    return folder.resolve()
