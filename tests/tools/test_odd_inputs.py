"""Odd inputs from public bug reports give their right results."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from shared_data import Shared

TOOL = Path(__file__).parents[2] / "tools" / "odd_inputs.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("odd_inputs", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


odd_inputs = load()


pytestmark = pytest.mark.slow  # each makes its input with a program of its own


@pytest.fixture(scope="module")
def inputs(shared: Shared) -> Path:
    return shared("odd_inputs")


@pytest.mark.parametrize("name", sorted(odd_inputs.CHECKS))
def test_odd_input(inputs: Path, tmp_path: Path, name: str) -> None:
    odd_inputs.run_check(inputs, name, tmp_path / "in")


def test_every_folder_is_checked(inputs: Path) -> None:
    assert {path.parent.name for path in inputs.glob("*/make.py")} == set(odd_inputs.CHECKS)
