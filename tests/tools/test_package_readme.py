"""Links of the README as a package index shows it."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "package_readme.py"
TEXT = "[a](docs/a.md#part) ![p](docs/p.png) [w](https://example.org) [h](#here) `x[0](y)`\n"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a stand-in for the base class of hatchling, which only builds have."""
    interface: Any = types.ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("package_readme", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links(hook: Any) -> None:
    assert hook.for_index(TEXT, "https://host/x/") == (
        "[a](https://host/x/blob/main/docs/a.md#part) ![p](https://host/x/raw/main/docs/p.png) "
        "[w](https://example.org) [h](#here) `x[0](y)`\n"
    )
    assert hook.for_index(TEXT, None) == "a  [w](https://example.org) [h](#here) `x[0](y)`\n"
