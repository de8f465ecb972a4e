"""Which data sets a folder of data sets holds, and the suites of sets that papers report on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medzsad.datasets.catalog import DatasetEntry, entries, find_entry
from medzsad.datasets.opening import ROOT_VARIABLE, find_layout, places
from medzsad.datasets.reading import Request, descend, relative_id, subfolders
from medzsad.errors import BadInput

# Suite -> the domain of its sets; None for both.
SUITES = {"paper17": None, "medical10": "medical", "industrial7": "industrial"}
Listing = Callable[[Path], list[Path]]


@dataclass(frozen=True)
class FoundSet:
    """A data set of the catalogue, as it lies in a folder of data sets.

    Attributes:
        entry: the data set.
        folder: where it lies, to be given to :func:`~medzsad.datasets.opening.open_dataset`.
        name: that folder below the folder of data sets.
        layout: its layout.
        classes: those that are there, where the catalogue lists them.
        is_part: whether the folder's name says that it holds a part of the set.
    """

    entry: DatasetEntry
    folder: Path
    name: str
    layout: str
    classes: tuple[str, ...]
    is_part: bool

    @property
    def summary(self) -> str:
        """Folder, layout and, where some are missing, the number of classes."""
        known, there = len(self.entry.classes), len(self.classes)
        some = f", {there} of {known} classes" if there < known else ""
        return f"{self.name} ({self.layout}{some}{', a part by its name' if self.is_part else ''})"


def suite_entries(suite: str) -> list[DatasetEntry]:
    """Return the data sets of a suite, in the catalogue's order.

    Args:
        suite: one of :data:`SUITES`, or names of data sets separated by commas, whose order is kept.

    Raises:
        BadInput: an unknown name, or a set that has no name of its own to be found by.
    """
    if suite in SUITES:
        domain = SUITES[suite]
        return [entry for entry in entries().values() if entry.paper and domain in (None, entry.domain)]
    names = [name.strip() for name in suite.split(",") if name.strip()]
    if not names or (len(names) == 1 and "," not in suite and not _is_known(names[0])):
        raise BadInput(
            f"unknown suite {suite!r}; use one of: {', '.join(SUITES)}, or names of data sets with commas "
            "between them (medzsad datasets list)"
        )
    by_name = {entry.name: entry for entry in map(find_entry, names)}
    found = list(by_name.values())
    for entry in found:
        if not entry.classes:
            raise BadInput(f"{entry.name} has no folder name to be found by; evaluate it with `dataset`")
    return found


def find_sets(data: str | Path | None, wanted: Sequence[DatasetEntry]) -> dict[str, FoundSet | None]:
    """Find data sets by the usual names of their folders, in a known layout.

    Folders are looked for in ``data`` and in the folders in it (``medical/Kvasir``), whatever the case and
    the separators of their names. No mask is read and nothing is prepared.

    Args:
        data: the folder of data sets; None for that of ``MEDZSAD_DATA``.
        wanted: the data sets.

    Returns:
        Name to where it lies; None for those that are not there.

    Raises:
        BadInput: if there is no such folder.
    """
    root = data_folder(data)
    listed = cache(subfolders)  # a folder is asked for many names
    return {entry.name: _find(entry, root, listed) for entry in wanted}


def data_folder(data: str | Path | None) -> Path:
    """Return the folder of data sets: ``data``, or that of ``MEDZSAD_DATA``.

    Raises:
        BadInput: if neither is given, or it is no folder.
    """
    named = data if data is not None else os.environ.get(ROOT_VARIABLE)
    if not named:
        raise BadInput(f"where are the data sets? give their folder with `data` DIR, or set {ROOT_VARIABLE}")
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give the one that holds the data sets")
    return folder


def _find(entry: DatasetEntry, root: Path, listed: Listing) -> FoundSet | None:
    request = Request(
        class_name=entry.classes[0] if len(entry.classes) == 1 else None,
        name=entry.name,
        channel=entry.channel,
        probe=True,
    )
    for folder, is_part in _candidates(entry, root, listed):
        try:
            match = find_layout(places(entry, folder), entry.layouts, request)
        except BadInput:
            # Opening it says what is wrong: a broken set is there, not missing.
            return FoundSet(entry, folder, relative_id(folder, root), "damaged", entry.classes, is_part)
        if match is not None and (match[2].samples or match[2].problems):
            classes = tuple(dict.fromkeys(sample.class_name for sample in match[2].samples))
            return FoundSet(entry, folder, relative_id(folder, root), match[0], classes, is_part)
    return None


def _candidates(entry: DatasetEntry, root: Path, listed: Listing) -> Iterator[tuple[Path, bool]]:
    """Folders that bear one of the set's names, whole ones first, and whether they say to be a part."""
    names = dict.fromkeys((entry.name, *entry.aliases, *entry.folders))
    for is_part in (False, True):
        for place in (root, *listed(root)):
            for name in names:
                folder = descend(place, name, is_part=is_part, listed=listed)
                if folder is not None:
                    yield folder, is_part


def _is_known(name: str) -> bool:
    try:
        find_entry(name)
    except BadInput:
        return False
    return True
