"""A request's multipart body to files, piece by piece: nothing is kept in memory, and limits hold at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from medzsad.errors import BadInput
from medzsad.integrations.server.uploads import TooLarge, Upload

IDLE_S = 30.0  # without a byte, after which an upload is given up
SLOWEST = 10_000  # bytes per second, after the first IDLE_S
OPTIONS_BYTES = 16_384
_DRAINED, _DRAIN_S = 16 << 20, 5.0


class TooSlow(BadInput):
    """An upload that holds a place for longer than others should wait."""


async def receive(request: Request, upload: Upload, most_bytes: float) -> dict[str, Any]:
    """Store the parts ``files`` and ``roi`` of a request in an upload, and return its part ``options``.

    Args:
        request: a multipart request.
        upload: gets the files.
        most_bytes: of the body.

    Raises:
        BadInput: if it is no such request, is too large or too slow, or the options are no JSON object.
        starlette.requests.ClientDisconnect: if it is cut.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    boundary = parameters.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadInput("send multipart/form-data: one or more parts 'files', and a part 'options'")
    parts = _Parts(upload)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        async for chunk in _paced(request, most_bytes):
            parser.write(chunk)
    except FormParserError as error:
        raise BadInput("the multipart body is damaged; send it again") from error
    finally:
        parts.close()
    if not parts.ended:
        raise BadInput("the multipart body ends too early; send it again")
    return parts.options()


async def drain(request: Request) -> None:
    """Read what is left of a small body, so that a client that still sends gets the answer."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                if size > _DRAINED:
                    return
    except (TimeoutError, RuntimeError, ClientDisconnect):  # slow, read already, or gone
        return


async def _paced(request: Request, most_bytes: float) -> AsyncIterator[bytes]:
    began, size = time.monotonic(), 0
    stream = request.stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise TooSlow(f"nothing came for {IDLE_S:.0f} s; send the upload again") from error
        size += len(chunk)
        if size > most_bytes:
            raise TooLarge(f"the upload has more than {most_bytes / 1e6:g} MB, the limit of this server")
        passed = time.monotonic() - began
        if passed > IDLE_S and size < SLOWEST * (passed - IDLE_S):
            raise TooSlow(f"the upload is slower than {SLOWEST // 1000} kB/s; use a faster connection")
        yield chunk


class _Parts:
    """What the parser tells of parts: files go to disk, options are kept, anything else is refused."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = b"", b""
        self._file: IO[bytes] | None = None
        self._options = bytearray()
        self.ended = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add_field(data[start:end]),
            "on_header_value": lambda data, start, end: self._add_value(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": lambda data, start, end: self._write(data[start:end]),
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def options(self) -> dict[str, Any]:
        try:
            values = json.loads(bytes(self._options) or b"{}")
        except (ValueError, RecursionError) as error:
            raise BadInput('options: not valid JSON; send an object such as {"plane": "axial"}') from error
        if not isinstance(values, dict):
            raise BadInput('options: not a JSON object; send one such as {"plane": "axial"}')
        return values

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._headers = {}

    def _add_field(self, text: bytes) -> None:
        self._field += text

    def _add_value(self, text: bytes) -> None:
        self._value += text

    def _end_header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _open(self) -> None:
        _, facts = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = facts.get(b"name", b"")
        if name in (b"files", b"roi"):
            filename = facts.get(b"filename", b"").decode("utf-8", "replace")
            if not filename:
                raise BadInput("a part has no file name; its ending tells the format")
            self._file = self._upload.create(filename, is_roi=name == b"roi").open("wb")
        elif name != b"options":
            raise BadInput("a part is neither 'files', 'roi' nor 'options'; send these alone")

    def _write(self, data: bytes) -> None:
        if self._file is not None:
            self._upload.count(len(data))
            self._file.write(data)
            return
        self._options += data
        if len(self._options) > OPTIONS_BYTES:
            raise BadInput(f"options: more than {OPTIONS_BYTES} bytes; leave out what is default")

    def _end(self) -> None:
        self.ended = True
