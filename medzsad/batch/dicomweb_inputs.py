"""Inputs on a DICOMweb server: fetched to a temporary folder, predicted as files, their results sent back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.errors import BadInput, MedzsadError
from medzsad.results.dicom.writers import DICOM_FORMATS
from medzsad.scans.dicom.web import RemoteSeries, access_headers, fetch_series, parse_remote, store_files
from medzsad.storage.atomic import PREFIX, sweep

if TYPE_CHECKING:
    from medzsad.batch import Outcome


FETCHED = f"{PREFIX}fetched-"  # folders with series of a server


@dataclass
class Fetched:
    """Inputs as paths on this machine, while the context of :func:`fetched` lasts.

    Attributes:
        paths: the inputs in order; what was fetched lies in a temporary folder.
        places: where a fetched folder is from.
        failed: what could not be fetched, and why.
        headers: secrets that open the server.
    """

    paths: list[Path] = field(default_factory=list)
    places: dict[Path, RemoteSeries] = field(default_factory=dict)
    failed: list[tuple[Path | str, Exception]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_remote(self) -> bool:
        """Whether any input was from a server, or should have been."""
        return bool(self.places or self.failed)

    def store(self, outcome: Outcome, say: Callable[[str], None] | None = None) -> None:
        """Send the DICOM results of fetched inputs back; what fails joins the outcome's failures."""
        for path, report, files in outcome.done:
            place = self._place(path)
            if place is None:
                continue
            try:
                count = store_files(place.server, list(_instances(files)), self.headers)
                if say:
                    say(f"{report['name']}: {count} DICOM objects stored on {place.server}.")
            except MedzsadError as error:
                outcome.failed.append((path, error))

    def restore_names(self, outcome: Outcome) -> None:
        """Put URLs in the place of temporary folders in the outcome, and add what was not fetched."""
        outcome.done = [(self._url(path), report, files) for path, report, files in outcome.done]
        outcome.failed = [
            *self.failed,
            *((self._url(path), self._renamed(path, error)) for path, error in outcome.failed),
        ]

    def _place(self, path: Path | str) -> RemoteSeries | None:
        folders = (folder for folder in self.places if Path(path).is_relative_to(folder))
        return next((self.places[folder] for folder in folders), None)

    def _url(self, path: Path | str) -> Path | str:
        place = self._place(path)
        return path if place is None else str(place)

    def _renamed(self, path: Path | str, error: Exception) -> Exception:
        place = self._place(path)
        if place is None or not isinstance(error, MedzsadError):
            return error
        text = str(error)
        for folder in (path, *self.places):
            text = text.replace(str(folder), str(place))
        return type(error)(text)


@contextmanager
def fetched(
    inputs: Iterable[str],
    *,
    server: str | None = None,
    study: str | None = None,
    series: str | None = None,
    headers: Iterable[str] = (),
    say: Callable[[str], None] | None = None,
) -> Iterator[Fetched]:
    """Fetch what lies on a server; it is deleted here in the end.

    Args:
        inputs: paths, and ``dicomweb://`` URLs (see :func:`~medzsad.scans.dicom.web.parse_remote`).
        server, study, series: one more input: a DICOMweb URL, and UIDs. Without a server, ``series`` is of no
            concern here.
        headers: lines for :func:`~medzsad.scans.dicom.web.access_headers`.
        say: gets a line for each series.

    Raises:
        BadInput: options that do not fit together. A series that cannot be had is in ``failed``.
    """
    if (server is None) != (study is None):
        raise BadInput("`dicomweb` URL and `study` UID belong together; give both, or a dicomweb:// URL.")
    result = Fetched()
    wanted: list[Path | RemoteSeries] = []
    for text in inputs:
        try:
            wanted.append(parse_remote(text) or Path(text))
        except BadInput as error:
            result.failed.append(("dicomweb input", error))
    if server is not None and study is not None:
        wanted.append(RemoteSeries(_http(server), study, series))
    if any(isinstance(one, RemoteSeries) for one in wanted):
        result.headers = access_headers(headers)
    sweep(Path(tempfile.gettempdir()), f"{FETCHED}*")
    folder = Path(tempfile.mkdtemp(prefix=FETCHED)).resolve()
    try:
        for number, one in enumerate(wanted):
            if isinstance(one, Path):
                result.paths.append(one)
                continue
            try:
                if say:
                    say(f"fetching {one}")
                path = fetch_series(one, folder / str(number), result.headers)
                result.paths.append(path)
                result.places[path] = one
            except MedzsadError as error:
                result.failed.append((str(one), error))
        yield result
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _http(server: str) -> str:
    scheme, mark, rest = server.partition("://")
    names = {"dicomweb": "http", "dicomwebs": "https"}
    return f"{names.get(scheme.lower(), scheme)}{mark}{rest}".rstrip("/")


def _instances(files: dict[str, Path]) -> Iterator[Path]:
    for kind, path in files.items():
        if kind in DICOM_FORMATS:
            yield from sorted(path.iterdir()) if path.is_dir() else [path]
