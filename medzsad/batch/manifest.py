"""The scans of a run, and their names: from files and folders, a CSV table, or a DICOMweb server."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medzsad.errors import BadInput, certain
from medzsad.scans.dicom.web import parse_remote
from medzsad.scans.dicom.web_query import find_studies, is_query
from medzsad.scans.names import unique_names
from medzsad.storage.hashing import hash_of
from medzsad.storage.text_files import read_text

COLUMNS = ("scan", "id", "series", "modality", "plane")
ID = re.compile(r"[^\s/\\.-][^/\\]*")
ID_BYTES = 120  # names of files are ids with endings, and may have 255 on most systems
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class ScanItem:
    """One scan to predict; plain text, so that it can be sent anywhere.

    Attributes:
        id: names it and its results; no other scan of the run has it.
        source: path of the file or folder, of a cohort absolute; or ``dicomweb://`` URL of a study or series.
        series, modality, plane: replace those of the run's settings.
        fault: why there is no scan at the place, for an item that fails when its turn comes.
    """

    id: str
    source: str
    series: str | None = None
    modality: str | None = None
    plane: str | None = None
    fault: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it lies on a server."""
        return is_url(self.source)


def is_url(text: str) -> bool:
    """Whether a text is the URL of something on a DICOMweb server."""
    return text.lower().startswith(("dicomweb://", "dicomwebs://"))


def is_table(text: str) -> bool:
    """Whether an input is a CSV table of scans."""
    return text.lower().endswith(".csv") and not is_url(text)


def read_manifest(
    inputs: Iterable[str], headers: Mapping[str, str] | None = None, *, series: str | None = None
) -> list[ScanItem]:
    """Return the scans that the inputs stand for, each once, in the order of their ids.

    Args:
        inputs: files, folders (see :func:`medzsad.scans.find.locate_scans`), ``.csv`` tables with a column
            ``scan`` and, if wanted, the others of :data:`COLUMNS`, and ``dicomweb://`` URLs of a study, a
            series, or a query for studies.
        headers: HTTP headers for queries.
        series: which series the run reads of every folder; by default, each of several studies in a folder is
            a scan.

    Returns:
        The scans. A path that does not exist is one, too: it fails when its turn comes, and stops no other.

    Raises:
        BadInput: if a table, an id or a URL is not as it should be, a query fails, or there is no scan.
    """
    given: list[ScanItem] = []
    found: dict[ScanItem, None] = {}  # without ids
    for text in inputs:
        if is_table(text):
            for row in _read_table(Path(text)):
                if row.id:
                    given.append(row)
                else:
                    found[row] = None
        else:
            scans = _expand(text, headers or {})
            found.update(dict.fromkeys(replace(s, series=None) if series else s for s in scans))
    items = given + _with_ids(list(found))
    if not items:
        raise BadInput("there is no scan in the inputs")
    seen: dict[str, ScanItem] = {}
    for item in items:
        other = seen.setdefault(item.id.casefold(), item)
        if other is not item:
            raise BadInput(
                f"two scans have the id {item.id!r}; give each its own in a CSV table's column 'id'"
            )
    return sorted(items, key=lambda item: item.id)


def list_scans(inputs: Iterable[str], *, series: str | None = None) -> tuple[list[ScanItem], list[str]]:
    """Return the scans of files, folders and ``dicomweb://`` URLs, each once and as given, in their order.

    What holds no scan is an item with its fault. The ids name the results in one folder: see docs/outputs.md.

    Args:
        inputs: see :func:`read_manifest`; tables and queries are for cohorts.
        series: see :func:`read_manifest`.

    Returns:
        The scans, and notes on files that are none.
    """
    from medzsad.scans.find import ScanPlace

    found: dict[ScanItem, None] = {}
    notes: list[str] = []
    for text in inputs:
        try:
            scans, about = _scans_at(text)
        except BadInput as error:  # a URL, which is not shown: it may hold a password
            scans, about = [ScanItem("", "dicomweb input", fault=str(error))], []
        found.update(dict.fromkeys(replace(s, series=None) if series else s for s in scans))
        notes += [f"{text}: {note}" for note in about]
    items = list(found)
    local = [item for item in items if not item.is_remote and not item.fault]
    places = [ScanPlace(Path(item.source), item.series).named_after for item in local]
    names = dict(zip(local, unique_names(places), strict=True))
    for number, item in enumerate(items):
        if item not in names:
            names[item] = _remote_name(item.source) if item.is_remote else f"no-scan-{number}"
    return [replace(item, id=names[item]) for item in items], notes


def _expand(text: str, headers: Mapping[str, str]) -> list[ScanItem]:
    if is_query(text):
        return [ScanItem("", url) for url in find_studies(text, dict(headers))]
    scans = _scans_at(text)[0]
    return [s if s.is_remote else replace(s, source=os.path.abspath(s.source)) for s in scans]


def _scans_at(text: str) -> tuple[list[ScanItem], list[str]]:
    """Return scans without ids, and notes on files that are none.

    Raises:
        BadInput: on a URL that no scan can be read from.
    """
    from medzsad.scans.find import locate_scans

    _check_url(text)
    if is_url(text):
        return [ScanItem("", text)], []
    try:
        places, notes = locate_scans(text)
    except BadInput as error:
        return [ScanItem("", text, fault=str(error))], []
    return [ScanItem("", str(place.path), place.series) for place in places], notes


def _with_ids(items: list[ScanItem]) -> list[ScanItem]:
    """Items under ids that do not depend on their order."""
    local = sorted({item.source for item in items if not item.is_remote})
    names = dict(zip(local, unique_names([Path(source) for source in local]), strict=True))
    many = {item.source for item in items} if len({item.source for item in items}) < len(items) else set()
    named = []
    for item in items:
        name = _remote_name(item.source) if item.is_remote else names[item.source]
        if item.source in many and (item.series or item.modality or item.plane):
            # Of several rows for one place, what tells them apart.
            series = (item.series or "")[-8:].replace("/", "-")
            name = "_".join(part for part in (name, series, item.modality, item.plane) if part)
        named.append(replace(item, id=_bounded(name)))
    return named


def _can_name_files(name: str) -> bool:
    return bool(ID.fullmatch(name)) and name.isprintable() and len(name.encode()) <= ID_BYTES


def _bounded(name: str) -> str:
    """Return the name; of a long one the beginning and a hash."""
    content = name.encode()
    if len(content) <= ID_BYTES:
        return name
    return f"{content[: ID_BYTES - 9].decode('utf-8', 'ignore')}-{hash_of(name) % 16**8:08x}"


def _check_url(text: str) -> None:
    """Refuses a URL that no scan can be read from."""
    if is_url(text):
        parse_remote(text)
    elif URL.match(text):
        raise BadInput(
            f"{text.partition('?')[0]}: scans are read from files, folders and dicomweb:// URLs; mount the "
            "place, or copy the scans"
        )


def _remote_name(url: str) -> str:
    """Of a study's UID its end, and a hash, so that no two are the same."""
    study = certain(parse_remote(url)).study
    return f"study-{study[-8:].replace('.', '-')}-{hash_of(url) % 16**8:08x}"


def _read_table(path: Path) -> list[ScanItem]:
    """Return the rows of a CSV table; relative paths are relative to the table's folder."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        header = [name.strip().lower() for name in reader.fieldnames or []]
        _check_header(path, header)
        reader.fieldnames = header
        rows = [_row(path, reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise BadInput(f"{path} is no CSV table ({error}).") from error
    if not rows:
        raise BadInput(f"{path} lists no scans.")
    return rows


def _check_header(path: Path, header: list[str]) -> None:
    if "scan" not in header:
        raise BadInput(
            f"{path} has no column 'scan'; its first line must name the columns, 'scan' among them."
        )
    twice = sorted({name for name in header if name in COLUMNS and header.count(name) > 1})
    if twice:
        raise BadInput(f"{path} has two columns {twice[0]!r}.")


def _row(path: Path, line: int, row: Mapping[str | None, str | None]) -> ScanItem:
    from medzsad.predicting import parse_plane
    from medzsad.scans.modality import parse_modality

    if None in row or None in row.values():
        raise BadInput(f"{path}, line {line}: not as many fields as the first line has columns.")
    cells = {name: (row.get(name) or "").strip() for name in COLUMNS}
    try:
        if not cells["scan"]:
            raise BadInput("the column 'scan' is empty")
        if cells["id"] and not _can_name_files(cells["id"]):
            raise BadInput(
                f"the id {cells['id']!r} cannot name files; use up to {ID_BYTES} letters, digits, '-', '_' "
                "and '.'"
            )
        if cells["plane"]:
            parse_plane(cells["plane"])
        parse_modality(cells["modality"] or None)
        _check_url(cells["scan"])
    except BadInput as error:
        raise BadInput(f"{path}, line {line}: {error}") from error
    source = cells["scan"]
    if not is_url(source):
        source = os.path.abspath(path.parent / Path(source).expanduser())
    return ScanItem(cells["id"], source, *(cells[name] or None for name in COLUMNS[2:]))
