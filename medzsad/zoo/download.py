"""Downloads of weight files: resumed where they were cut, verified by hash before anything reads them."""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medzsad.errors import ModelNotReady
from medzsad.limits import require_file
from medzsad.storage import cache
from medzsad.zoo import hub
from medzsad.zoo.catalogue import WeightFile

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 30.0
BACKOFF = (0.5, 1.0, 2.0, 4.0)  # seconds before each retry that follows no progress
_CHUNK = 1 << 20
_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}

Progress = Callable[[int, int | None], None]
"""Gets the bytes there are and the bytes there will be (None where the server does not say)."""


class Unreachable(ModelNotReady):
    """A file that could not be downloaded, but could be put in place by hand."""


class _Cut(Exception):  # noqa: N818 - never leaves this file
    """The connection broke; what came so far is kept."""


@dataclass(frozen=True)
class Hashes:
    """The names that a file's bytes have."""

    sha256: str
    git_blob: str


def hash_file(path: Path) -> Hashes:
    """Hashes a file.

    Raises:
        ModelNotReady: if it cannot be read.
    """
    require_file(path, ModelNotReady)
    sha256, blob = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    try:
        blob.update(f"blob {path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                sha256.update(chunk)
                blob.update(chunk)
    except OSError as error:
        raise ModelNotReady(f"{path}: cannot be read ({error.strerror or error})") from error
    return Hashes(sha256.hexdigest(), blob.hexdigest())


def mismatch(file: WeightFile, found: Hashes) -> str | None:
    """Return what is wrong with the hashes of ``file``.

    None if they are as the catalogue says, if it does.
    """
    if file.sha256 is not None and not found.sha256.startswith(file.sha256):
        return f"expected sha256 {file.sha256}, found {found.sha256}"
    if file.git_blob is not None and found.git_blob != file.git_blob:
        return f"expected git blob {file.git_blob}, found {found.git_blob}"
    return None


def dropped_file(file: WeightFile, known: dict[str, WeightFile]) -> Path | None:
    """Return the original of ``file`` where a user put it into the cache's ``incoming`` folder by hand.

    Its name there is :attr:`WeightFile.incoming_name`, or its original name if that is no other file's.
    """
    names = [file.incoming_name]
    original = file.original_name
    if original is not None and [f.original_name for f in known.values()].count(original) == 1:
        names.append(original)
    candidates = [cache.incoming_folder() / name for name in names if name is not None]
    return next((path for path in candidates if path.is_file()), None)


def hub_file(file: WeightFile) -> Path | None:
    """Return the original of ``file`` in the cache of the hub's own client, if it is there and verified."""
    path = hub.cached_file(file.url) if file.url is not None else None
    known = file.sha256 is not None or file.git_blob is not None
    return path if path is not None and known and mismatch(file, hash_file(path)) is None else None


def download(file: WeightFile, *, progress: Progress | None = None) -> tuple[Path, Hashes]:
    """Download the original of ``file`` into the cache's ``downloads`` folder, or what is left of it.

    Returns:
        The complete, verified file, and its hashes.

    Raises:
        Unreachable: if the source cannot be reached, lacks the file, or keeps breaking off; or if downloads
            are switched off (``HF_HUB_OFFLINE``).
        ModelNotReady: if the bytes are not the expected ones; they are deleted.
        OutputNotWritable: if the disk is full or the folder cannot be written. What came so far is kept.
    """
    if file.url is None:
        raise Unreachable(f"{file.name} has no address to download it from")
    path = cache.partial(file.name)
    cache.make_folder(path.parent)
    if file.sha256 is None and file.git_blob is None:
        # Without a hash nobody would notice that two halves are of different files.
        path.unlink(missing_ok=True)
    elif path.is_file() and mismatch(file, found := hash_file(path)) is None:
        return path, found
    url = hub.address(file.url)
    if hub.is_offline() and not url.startswith("file:"):
        raise Unreachable(f"{url}: downloads are switched off (HF_HUB_OFFLINE)")
    failures = 0
    while True:
        before = _size(path)
        try:
            _receive(file, url, path, progress, again=failures > 0)
            break
        except _Cut as cut:
            failures = failures + 1 if _size(path) <= before else 1
            if failures > len(BACKOFF):
                raise Unreachable(f"{url}: {cut}; tried {failures} times") from cut
            time.sleep(BACKOFF[failures - 1])
    found = hash_file(path)
    wrong = mismatch(file, found)
    if wrong is not None:
        path.unlink(missing_ok=True)
        raise ModelNotReady(
            f"{url}: not the file that the catalogue describes ({wrong}): changed at the source, "
            "damaged on the way, or a proxy's page in its place; it was deleted; try again, or import a copy"
        )
    return path, found


def _receive(file: WeightFile, url: str, path: Path, progress: Progress | None, *, again: bool) -> None:
    """One request to ``url``, for what is still missing; ``again`` if the server has answered before.

    Raises:
        _Cut: if it ended early.
    """
    start = _size(path)
    request = urllib.request.Request(url, headers={"User-Agent": "medzsad", "Accept-Encoding": "identity"})
    for name, value in hub.access_headers(file.url or "").items():
        request.add_unredirected_header(name, value)  # for the hub, not for the storage it leads to
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = _opener().open(request, timeout=CONNECT_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            _refused(error, path, start, url, is_hub=hub.is_hub_file(file.url or ""))
        return
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        # A server that was there and went away may come back; one that never was is given up at once.
        if again:
            raise _Cut(f"cannot be reached ({reason})") from error
        raise Unreachable(f"{url}: cannot be reached ({reason})") from error
    with response:
        if start and not _continues(response, start):
            start = 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        if total is not None:
            # Twice, because the file is then converted before the original is deleted.
            cache.require_space(path, total - start + total, file.name)
        _copy(response, path, start, total, progress)


def _copy(response: Any, path: Path, start: int, total: int | None, progress: Progress | None) -> None:
    done = start
    try:
        # Unbuffered: what a full disk refused must not be tried again on closing.
        output = open(path, "ab" if start else "wb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise cache.not_writable(path, error) from error
    with output:
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _Cut(f"the connection broke after {done} bytes") from error
            if not chunk:
                break
            try:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[output.write(rest) :]
            except OSError as error:
                raise cache.not_writable(path, error) from error
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    if total is not None and done < total:
        raise _Cut(f"the connection broke after {done} of {total} bytes")


def _continues(response: Any, start: int) -> bool:
    """Whether the answer goes on at ``start``; a server may ignore the wish and send all."""
    said = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return getattr(response, "status", None) == 206 and said is not None and int(said[1]) == start


def _refused(error: urllib.error.HTTPError, path: Path, start: int, url: str, *, is_hub: bool) -> None:
    if error.code == 416 and start:
        said = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", "").strip())
        if said is not None and int(said[1]) == start:
            return  # all of it was there already
        path.unlink(missing_ok=True)
        raise _Cut("the server's file is shorter than what was there")
    if error.code in _WORTH_RETRYING:
        raise _Cut(f"the server answered {error.code} {error.reason}")
    hint = "; HF_TOKEN holds no token that it lets in" if error.code in (401, 403) and is_hub else ""
    raise Unreachable(f"{url}: the server answered {error.code} {error.reason}{hint}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


class _Connection(http.client.HTTPConnection):
    """Impatient until connected, patient afterwards."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT)


class _SecureConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT)


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Connection, request)


class _SecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, request, context=ssl.create_default_context())


def _opener() -> urllib.request.OpenerDirector:
    """As urllib's own, proxies and redirects included, with the two timeouts."""
    return urllib.request.build_opener(_Handler, _SecureHandler)
