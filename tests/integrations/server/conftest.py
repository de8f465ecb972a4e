"""One real server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serve_process import ServeProcess, serving, write_scan


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server with small limits, which takes the page of another origin, too."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    pytest.importorskip("python_multipart")
    arguments = ("--max-upload", 3, "--max-unpacked", 6, "--cors-origin", "https://viewer.example")
    with serving(tmp_path_factory.mktemp("serve"), *arguments) as process:
        yield process


@pytest.fixture
def server(one_server: ServeProcess) -> Iterator[ServeProcess]:
    """The server, which has nothing to remember before and after a test."""
    yield one_server
    one_server.forget()


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small NIfTI file."""
    return write_scan(tmp_path_factory.mktemp("scan") / "scan.nii.gz").read_bytes()
