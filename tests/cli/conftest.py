from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medzsad.cli.main import run

# Makes the DICOM builders importable: tests are collected without touching ``sys.path``.
sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("scans", "results")]


@pytest.fixture
def medzsad(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
