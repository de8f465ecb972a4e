"""Fixtures of the data sets' tests."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache folder of the test's own, and no data folder from outside."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MEDZSAD_CACHE", str(folder))
    monkeypatch.delenv("MEDZSAD_DATA", raising=False)
    return folder
