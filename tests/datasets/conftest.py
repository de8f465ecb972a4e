"""Makes the tree builder importable: tests are collected without touching ``sys.path``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache folder of the test's own, and no data folder from outside."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MEDZSAD_CACHE", str(folder))
    monkeypatch.delenv("MEDZSAD_DATA", raising=False)
    return folder
