"""Who is answered, and what browsers are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_process import ServeProcess, serving

from medzsad.cli.main import run
from medzsad.integrations.server.security import Guard

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server that asks for a token."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(f"{TOKEN}\n")
    with serving(folder, "--host", "0.0.0.0", "--token-file", folder / "token") as process:
        process.url = process.url.replace("0.0.0.0", "127.0.0.1")
        yield process


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1"), ("POST", "/v1/predictions"), ("DELETE", "/v1/predictions/x")]
)
def test_without_the_token_nothing_is_answered(
    guarded: ServeProcess, given: str | None, method: str, path: str
) -> None:
    headers = {} if given is None else {"Authorization": given}
    status, answered, body = guarded.request(method, path, **headers)
    assert (status, answered["www-authenticate"]) == (401, "Bearer")
    assert TOKEN.encode() not in body


def test_with_the_token_it_is(guarded: ServeProcess, scan: bytes) -> None:
    allowed = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.request("GET", "/v1", **allowed)[0] == 200
    status, answer = guarded.post({"a.nii": b"nothing"}, **allowed)
    assert (status, answer["detail"].split()[0]) == (400, "a.nii")
    assert TOKEN not in guarded.log.read_text()


@pytest.mark.parametrize("path", ["/v1", "/v1/models", "/nothing", "/v1/predictions/none"])
def test_browsers_are_told_to_be_strict(server: ServeProcess, path: str) -> None:
    headers = server.request("GET", path)[1]
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:x", "[::1", "", "a b"])
def test_a_name_that_is_not_ours_is_not_answered(server: ServeProcess, host: str) -> None:
    assert server.request("GET", "/v1", Host=host)[0] in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.0.0.1", "[::1]:8765", "10.1.2.3:80"])
def test_addresses_and_localhost_are_answered(server: ServeProcess, host: str) -> None:
    assert server.request("GET", "/v1", Host=host)[0] == 200


def test_pages_of_other_sites_are_not_answered_unless_named(server: ServeProcess) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert server.request("GET", "/v1", Origin=origin)[0] == 403
        assert server.request("POST", "/v1/predictions", Origin=origin)[0] == 403
    assert server.request("GET", "/v1", Origin=server.url)[0] == 200
    status, headers, _ = server.request("GET", "/v1", Origin="https://viewer.example")
    assert (status, headers["access-control-allow-origin"]) == (200, "https://viewer.example")
    status, headers, _ = server.request(
        "OPTIONS",
        "/v1/predictions",
        Origin="https://viewer.example",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization",
    )
    assert (status, headers["access-control-allow-origin"]) == (200, "https://viewer.example")


def test_the_log_has_nothing_that_a_client_wrote(server: ServeProcess) -> None:
    server.request("GET", "/v1/predictions/Doe-Jane/results/Doe_Jane.nii.gz?name=Doe-Jane")
    server.request("GET", "/Doe-Jane.nii.gz")
    server.request("Doe-Jane", "/v1")
    time.sleep(0.2)
    assert "Doe" not in server.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "add --token-file"),
        (["--host", "192.0.2.1", "--token-file", "TOKEN"], "cannot listen on 192.0.2.1"),
        (["--token-file", "missing"], "missing: no such file"),
        (["--token-file", "SHORT"], "a token has 16 letters or more"),
        (["--models", "no-such-model"], "no-such-model"),
        (["--normals-dir", "missing"], "--normals-dir missing: no such folder"),
        (["--cors-origin", "*"], "--cors-origin *: give one origin"),
        (["--queue", "0"], "--queue"),
    ],
)
def test_a_server_that_cannot_be_is_not_started(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Path("TOKEN").write_text(TOKEN)
    Path("SHORT").write_text("secret")
    assert run(["serve", "--port", "0", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("run-*") if path.is_dir()] == []


def test_other_protocols_pass_by() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(Guard(app, token=TOKEN)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
