from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medzsad.cli.main import run


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three scans and one that is damaged."""
    from cohort_factory import write_scans

    return write_scans(tmp_path / "in", 3, 1)


@pytest.fixture
def medzsad(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
