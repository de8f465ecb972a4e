"""One real server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serve_process import ServeProcess, serving

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server that asks for a token, which lies in the file ``token`` beside its log."""
    for package in ("fastapi", "uvicorn", "python_multipart"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("serve")
    (folder / "token").write_text(f"{TOKEN}\n")
    with serving(folder, "--token-file", folder / "token") as process:
        yield process
