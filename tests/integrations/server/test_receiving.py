"""Uploads that come slowly or not at all, and disks that are full."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from serve_process import BOUNDARY

from medzsad.integrations.server import app as server_app
from medzsad.integrations.server import receiving
from medzsad.integrations.server.app import create_app
from medzsad.integrations.server.private_folder import PrivateFolder
from medzsad.integrations.server.settings import ServerSettings
from medzsad.integrations.server.tickets import Tickets

START = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="scan.nii"\r\n\r\n'.encode()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[PrivateFolder]:
    made = PrivateFolder(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "IDLE_S", 1.0)
    monkeypatch.setattr(receiving, "_DRAIN_S", 0.2)


def upload(folder: PrivateFolder, chunks: AsyncIterator[bytes]) -> tuple[int, str]:
    """Return status and reason that an upload of these chunks is answered with."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predictions",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"content-type", f"multipart/form-data; boundary={BOUNDARY}".encode()),
        ],
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": await anext(chunks), "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def answer() -> None:
        await create_app(ServerSettings(), folder)(scope, receive, send)

    asyncio.run(answer())
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body)["detail"]


def files_in(folder: PrivateFolder) -> list[Path]:
    return [path for path in folder.path.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_an_upload_that_falls_silent_is_given_up(folder: PrivateFolder) -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield START + bytes(1000)
        await asyncio.sleep(60)

    before = files_in(folder)
    assert upload(folder, silent()) == (408, "nothing came for 1 s; send the upload again")
    assert files_in(folder) == before


def test_an_upload_that_trickles_is_given_up(folder: PrivateFolder) -> None:
    async def trickling() -> AsyncIterator[bytes]:
        yield START
        while True:
            await asyncio.sleep(0.05)
            yield bytes(10)

    before = files_in(folder)
    status, reason = upload(folder, trickling())
    assert (status, reason) == (408, "the upload is slower than 10 kB/s; use a faster connection")
    assert files_in(folder) == before


def test_a_disk_that_fills_up_meanwhile(folder: PrivateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole() -> AsyncIterator[bytes]:
        yield START + bytes(1000)

    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(server_app, "receive", full)
    before = files_in(folder)
    status, reason = upload(folder, whole())
    assert status == 507
    assert files_in(folder) == before
    assert reason == "the server cannot store the upload (No space left on device); try again later"


def test_a_disk_that_fills_up_while_results_are_packed(
    folder: PrivateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = folder.path / "scan_anomaly_map.nii.gz"
    result.write_bytes(bytes(1000))

    def full(files: dict[str, Path], path: Path) -> None:
        path.write_bytes(b"PK")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(server_app, "_pack", full)

    done = SimpleNamespace(files={result.name: result}, folder=folder.path)
    known = SimpleNamespace(get=lambda _: done)
    routes = server_app._Routes(ServerSettings(), {}, known, folder, Tickets())  # type: ignore[arg-type]
    with pytest.raises(server_app.HTTPException) as caught:
        asyncio.run(routes.zip("any"))
    assert caught.value.status_code == 507
    assert (
        caught.value.detail == "the server cannot pack the results (No space left on device); try again later"
    )
    assert not list(folder.path.glob("*.zip"))
