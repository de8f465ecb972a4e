from __future__ import annotations

from collections.abc import Callable

import pytest
from json_schemas import check_json

from medzsad.cli.main import run


@pytest.fixture
def medzsad(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: (exit code, stdout, stderr). JSON keeps to its schema."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        texts = [str(argument) for argument in arguments]
        code = run(texts)
        captured = capsys.readouterr()
        check_json(texts, captured.out)
        return code, captured.out, captured.err

    return call
