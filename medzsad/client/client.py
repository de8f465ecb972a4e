"""Predictions by a server: upload, wait, take the results, and leave nothing there."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medzsad.client.connection import Connection, Refused
from medzsad.client.inputs import ScanFiles, scan_files
from medzsad.client.saving import RemoteFile, save_results
from medzsad.errors import BadInput, MedzsadError

API = 1
"""Number of the interface that this client speaks."""
WORDS = ("auto", "brain", "whole")
"""What a region of interest may be besides a mask."""
_LOOK_S = (0.05, 1.0)  # between two looks at a prediction: at first, and at most
_BUSY_S = 2.0  # to wait where a full server does not say how long
_PATIENCE_S = 24 * 3600.0

Watch = Callable[[str, int, int], None]


class ServerFailed(MedzsadError):  # noqa: N818 - as the other kinds
    """A prediction that failed for a reason that is not the scan's: a bug, or a server that ends."""

    exit_code = 1


@dataclass(frozen=True)
class RemotePrediction:
    """What a server found in a scan.

    Attributes:
        name: of the scan, and its results.
        score: of the volume, in [0, 1].
        report: see docs/outputs.md.
        files: what was written, by kind.
    """

    name: str
    score: float
    report: dict[str, Any]
    files: dict[str, Path]


class Client:
    """A client of ``medzsad serve``, without torch or NumPy.

    Args:
        url: of the server, such as ``http://127.0.0.1:8765``.
        token: secret that it asks for.
        token_file: a file that holds it.
        timeout_s: without an answer, after which the server counts as gone.

    Raises:
        BadInput: if the address is none, the server cannot be reached, wants another token, or speaks
            another version of the interface. Another version of medzsad is a warning.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        if token_file is not None:
            from medzsad.client.token import read_token

            token = read_token(Path(token_file).expanduser())
        self._connection = Connection(url, token, timeout_s)
        self.about = self._greeted()

    def _greeted(self) -> dict[str, Any]:
        from medzsad import __version__

        about = self._connection.json("GET", "/v1")
        if not isinstance(about, dict) or about.get("name") != "medzsad":
            raise BadInput(f"{self._connection.url} is no medzsad server; check the address")
        if about.get("api") != API:
            raise BadInput(
                f"{self._connection.url} speaks version {about.get('api')} of the interface, this client "
                f"version {API}; install the same medzsad on both"
            )
        if about.get("version") != __version__:
            warnings.warn(
                f"{self._connection.url} has medzsad {about.get('version')}, this client {__version__}: "
                "results may differ",
                stacklevel=3,
            )
        return about

    def models(self) -> list[dict[str, Any]]:
        """Return the models that the server offers, its default first: ``name``, ``about``, ``for``."""
        return self._connection.json("GET", "/v1/models")

    def predict(
        self,
        scan: str | os.PathLike[str] | ScanFiles,
        out: str | os.PathLike[str],
        *,
        watch: Watch | None = None,
        **options: Any,
    ) -> RemotePrediction:
        """Predict one scan, and write its results as ``medzsad predict`` does.

        Args:
            scan: a file, or a folder with the DICOM files of one series.
            out: folder of the results; created where missing.
            watch: is told the phase, and of its slices how many are done and how many there are.
            options: see docs/server.md: ``model``, ``plane``, ``report``, ...; ``roi`` may be a mask's file.

        Raises:
            BadInput: if the scan or an option cannot be used, or the server cannot be reached.
            ServerFailed: if the prediction failed for another reason.
            OutputNotWritable: if the results cannot be written.
        """
        files = scan if isinstance(scan, ScanFiles) else _only_scan(scan)
        if options.get("roi") is not None and options["roi"] not in WORDS:
            files = files.with_roi(Path(options.pop("roi")))
        told = watch or (lambda phase, done, total: None)
        identifier = self._submit(files, {k: v for k, v in options.items() if v is not None}, told)
        here = f"/v1/predictions/{identifier}"
        try:
            done = self._wait(here, files, told)
            told("fetching", 0, 0)
            remote = [RemoteFile(result.get("kind", ""), result["name"]) for result in done["results"]]
            paths, report = save_results(
                remote,
                lambda name, path: self._connection.download(f"{here}/results/{name}", path),
                Path(out),
                files.name,
            )
        finally:  # also of an interrupted one, which is cancelled so
            with suppress(MedzsadError):
                self._connection.json("DELETE", here)
        return RemotePrediction(files.name, float(done["score"]), report, paths)

    def _submit(self, files: ScanFiles, options: dict[str, Any], told: Watch) -> str:
        began = time.monotonic()
        while True:
            told("uploading", 0, 0)
            try:
                return str(self._connection.upload("/v1/predictions", files.parts, options)["id"])
            except Refused as refusal:
                if refusal.status not in (429, 503) or time.monotonic() - began > _PATIENCE_S:
                    kind = ServerFailed if refusal.status >= 500 else BadInput
                    raise kind(files.told(str(refusal))) from None
                told("waiting for a place", 0, 0)
                time.sleep(refusal.retry_after or _BUSY_S)

    def _wait(self, here: str, files: ScanFiles, told: Watch) -> dict[str, Any]:
        pause, longest = _LOOK_S
        while True:
            try:
                document = self._connection.json("GET", here)
            except Refused as refusal:  # somebody deleted it, or the server was started anew
                raise ServerFailed(f"{files.source}: {refusal}") from None
            status, progress = document["status"], document["progress"]
            if status == "done":
                return document
            if status not in ("queued", "running"):
                error = files.told(str(document.get("error") or f"the prediction was {status}"))
                raise (BadInput if document.get("fault") == "input" else ServerFailed)(error)
            told(progress["phase"], progress["done"], progress["total"])
            time.sleep(pause)
            pause = min(longest, pause * 1.5)


def _only_scan(path: str | os.PathLike[str]) -> ScanFiles:
    scans, failed = scan_files([path])
    for _, reason in failed:
        raise BadInput(reason)
    if len(scans) != 1:
        raise BadInput(f"{path} holds {len(scans)} scans; give them one by one")
    return scans[0]
