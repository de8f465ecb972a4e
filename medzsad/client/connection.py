"""HTTP to one server: requests, uploads piece by piece, and errors in a line."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medzsad.errors import BadInput

_CHUNK = 1 << 18
_LONGEST_READ_S = 600.0  # that a server may need to see whether an upload is a scan
_LONGEST_ANSWER = 64 << 20  # bytes of JSON


class Refused(BadInput):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        retry_after: seconds after which the server may have time; None if it does not say.
    """

    def __init__(self, detail: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class Part:
    """A file of an upload.

    Attributes:
        name: that it is sent under.
        path: of the file.
        field: what it is: of the scan, or ``"roi"``.
    """

    name: str
    path: Path
    field: str = "files"


class Connection:
    """A server at an address.

    Args:
        url: ``http://`` or ``https://``, host, port and perhaps a path in front of the server's own.
        token: secret that it asks for.
        timeout_s: without an answer, after which it counts as gone.

    Raises:
        BadInput: if the address is none.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 120.0) -> None:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise BadInput(f"{url.rpartition('@')[2]} is no server; it looks like http://127.0.0.1:8765")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise BadInput("the server's address holds more than host, port and path; use a token instead")
        self.url = url.rstrip("/")
        self._parts = parts
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout_s = timeout_s

    def json(self, method: str, path: str) -> Any:
        """Return the JSON of an answer; None of an empty one.

        Raises:
            Refused: if it is an error.
            BadInput: if the server cannot be reached, or answers no JSON.
        """
        with closing(self._request(method, path)) as answer:
            return self._document(answer)

    def download(self, path: str, target: Path) -> None:
        """Write an answer to a file.

        Raises:
            Refused, BadInput: as :meth:`json`.
            OSError: if the file cannot be written.
        """
        with closing(self._request("GET", path)) as answer, target.open("wb") as file:
            expected = answer.length
            written = 0
            while chunk := self._read(answer, _CHUNK):
                written += file.write(chunk)
            if expected is not None and written != expected:
                raise BadInput(f"{self.url} broke off in the middle of a result; try again")

    def upload(self, path: str, files: Sequence[Part], options: dict[str, Any]) -> Any:
        """Send files and options as a multipart form, and return the JSON of the answer.

        Raises:
            Refused, BadInput: as :meth:`json`; or a file cannot be read.
        """
        boundary = secrets.token_hex(16)
        heads = [
            (
                f'--{boundary}\r\nContent-Disposition: form-data; name="{part.field}"; '
                f'filename="{part.name}"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n"
            ).encode("ascii")
            for part in files
        ]
        first = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="options"\r\n\r\n{json.dumps(options)}\r\n'
        ).encode()
        last = f"--{boundary}--\r\n".encode()
        try:
            sizes = [os.stat(part.path).st_size for part in files]
        except OSError as error:
            raise BadInput(f"{error.filename}: cannot be read ({error.strerror})") from error
        pieces = sum(map(len, heads)) + sum(sizes) + 2 * len(files)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(first) + pieces + len(last)),
        }

        def body() -> Iterator[bytes]:
            yield first
            for head, part, size in zip(heads, files, sizes, strict=True):
                yield head
                yield from _content(part.path, size)
                yield b"\r\n"
            yield last

        with closing(self._request("POST", path, body(), headers, _LONGEST_READ_S)) as answer:
            return self._document(answer)

    def _request(
        self,
        method: str,
        path: str,
        body: Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        least_s: float = 0.0,
    ) -> http.client.HTTPResponse:
        parts = self._parts
        timeout_s = max(self._timeout_s, least_s)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                parts.hostname or "",
                parts.port,
                timeout=timeout_s,
                context=ssl.create_default_context(),
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
        all_headers = {**self._headers, **(headers or {}), "Connection": "close"}
        try:
            connection.connect()
            try:
                connection.request(method, f"{self._prefix}{path}", body, all_headers)
            except (BrokenPipeError, ConnectionResetError):
                if body is None:
                    raise
                # The server answers before it has read all: its answer says why.
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BadInput(
                f"{self.url} cannot be reached ({reason}); is medzsad serve running there?"
            ) from error
        if answer.status >= 400:
            with closing(answer):
                raise self._refusal(answer)
        return answer

    def _refusal(self, answer: http.client.HTTPResponse) -> Refused:
        try:
            detail = json.loads(answer.read(_CHUNK))["detail"]
        except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
            detail = f"{answer.status} {answer.reason}; is it medzsad serve?"
        after = answer.getheader("Retry-After") or ""
        return Refused(str(detail), answer.status, float(after) if after.isdecimal() else None)

    def _document(self, answer: http.client.HTTPResponse) -> Any:
        content = self._read(answer, _LONGEST_ANSWER)
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise BadInput(f"{self.url} answers no JSON; is it medzsad serve?") from error

    def _read(self, answer: http.client.HTTPResponse, size: int) -> bytes:
        try:
            return answer.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise BadInput(f"{self.url} broke off in the middle of an answer; try again") from error


def _content(path: Path, size: int) -> Iterator[bytes]:
    """Yield a file of which ``size`` bytes were announced."""
    try:
        with path.open("rb") as file:
            left = size
            while left:
                chunk = file.read(min(_CHUNK, left))
                if not chunk:
                    raise BadInput(f"{path} became shorter while it was sent; try again")
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from error
