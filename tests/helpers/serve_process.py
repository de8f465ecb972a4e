"""A real ``medzsad serve`` process on this machine, and small scans to send to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nibabel
from made_scans import AFFINE, small_head

BOUNDARY = "the-boundary"
PATIENCE_S = 300.0  # on a machine that has much else to do


def write_scan(path: Path, seed: int = 0, shape: tuple[int, int, int] = (20, 24, 6)) -> Path:
    nibabel.save(nibabel.Nifti1Image(small_head(shape, seed), AFFINE), path)
    return path


def form(files: dict[str, bytes], options: dict[str, Any] | None = None) -> bytes:
    """A multipart body; the boundary is :data:`BOUNDARY`."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files.items()
    ]
    if options is not None:
        text = json.dumps(options)
        parts.append(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="options"\r\n\r\n{text}\r\n'.encode()
        )
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class ServeProcess:
    """A server that runs.

    Attributes:
        url: of it.
        temporary: its TMPDIR.
        process: it.
        log: what it prints on stderr.
    """

    def __init__(self, folder: Path, *arguments: object, **environment: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log.txt"
        command = [sys.executable, "-m", "medzsad", "serve", "--port", "0", *map(str, arguments)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1", **environment},
            )
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise RuntimeError(f"no address: {line!r} {self.log.read_text()}")
        self.url = found[0]

    def request(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (small letters) and body of an answer."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def json(self, path: str) -> Any:
        status, _, body = self.request("GET", path)
        assert status == 200, body
        return json.loads(body)

    def post(
        self, files: dict[str, bytes], options: dict[str, Any] | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an upload."""
        kind = {"Content_Type": f"multipart/form-data; boundary={BOUNDARY}"}
        status, _, body = self.request("POST", "/v1/predictions", form(files, options), **{**kind, **headers})
        return status, json.loads(body)

    def finished(self, identifier: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until a prediction is over."""
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            document = self.json(f"/v1/predictions/{identifier}")
            if document["status"] not in ("queued", "running"):
                return document
            time.sleep(0.05)
        raise TimeoutError(document)

    def files(self) -> list[str]:
        """What lies in its temporary folder: paths of files, without locks."""
        found = []
        for folder, _, names in os.walk(self.temporary):  # which does not mind what goes meanwhile
            found += [os.path.join(folder, name) for name in names if not name.endswith(".lock")]
        return sorted(found)

    def forget(self) -> None:
        """Delete all predictions."""
        for document in self.json("/v1/predictions"):
            self.request("DELETE", document["links"]["self"])

    def stop(self) -> int:
        """Stop it as Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def serving(folder: Path, *arguments: object, **environment: str) -> Iterator[ServeProcess]:
    """Run a server while the block runs."""
    server = ServeProcess(folder, *arguments, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()
