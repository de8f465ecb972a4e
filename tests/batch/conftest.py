from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from json_schemas import check_json

from medzsad.cli.main import run


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three scans and one that is damaged."""
    from cohort_factory import write_scans

    return write_scans(tmp_path / "in", 3, 1)


@pytest.fixture
def medzsad(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: (exit code, stdout, stderr). JSON keeps to its schema."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        texts = [str(argument) for argument in arguments]
        code = run(texts)
        captured = capsys.readouterr()
        check_json(texts, captured.out)
        return code, captured.out, captured.err

    return call
