"""The catalogue of data sets. Reading it imports neither numpy nor torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from medzsad.errors import BadInput

GENERIC = ("mvtec", "images-masks", "yes-no")
VOLUMETRIC = ("datalist", "image-label-folders", "cases")


@dataclass(frozen=True)
class DatasetEntry:
    """A data set by name.

    Attributes:
        name: what the user types.
        title: one line for lists.
        domain: ``"industrial"``, ``"medical"`` or ``"any"``.
        level: what its published form allows to compare: ``"image"``, ``"pixel"`` or ``"voxel"``.
        classes: its classes; empty if the folders say.
        source: home page, or where it can be got.
        licence: as its own page states it; ``"unknown"`` if it states none that we know of.
        tree: its published folder layout, for people.
        own_layouts: its own layouts, the published one first (:data:`medzsad.datasets.layouts.READERS`).
        class_name: what an image shows, for texts; None where the classes say it.
        names: what a method's own code calls it in texts, by method (:mod:`medzsad.datasets.class_names`).
        counts: how many images a split has as published, where that is known.
        organ: name in :mod:`medzsad.detectors.organs`.
        modality: how its images came about, a name of :class:`medzsad.scans.scan.Modality`; None of data of
            one's own. Images of all but ``"rgb"`` are grey, whatever their files' channels say.
        folders: names that its folder has in downloads.
        aliases: other names that it may be called.
        channel: of volumes, which image of a case is read by default.
        note: what one must know before comparing figures.
        paper: whether it is one of HeadCLIP's 17 evaluation sets.
    """

    name: str
    title: str
    domain: str
    level: str
    classes: tuple[str, ...]
    source: str
    licence: str
    tree: str
    own_layouts: tuple[str, ...]
    class_name: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    organ: str | None = None
    modality: str | None = None
    folders: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    channel: str | None = None
    note: str = ""
    paper: bool = False

    @property
    def is_volumetric(self) -> bool:
        """Whether it is made of volumes."""
        return self.level == "voxel"

    @property
    def layouts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The layouts that it is looked for in: its own after an explicit ``meta.json``, and generic ones."""
        if self.is_volumetric:
            return self.own_layouts, tuple(name for name in VOLUMETRIC if name not in self.own_layouts)
        generic = tuple(name for name in GENERIC if name not in self.own_layouts)
        return ("meta.json", *self.own_layouts), generic


@cache
def entries() -> dict[str, DatasetEntry]:
    """All data sets, in the catalogue's order."""
    found = {}
    for name, fields in _catalogue()["sets"].items():
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        found[name] = DatasetEntry(name=name, own_layouts=fields.pop("layouts"), **fields)
    return found


def find_entry(name: str) -> DatasetEntry:
    """Return the data set called ``name``, in any case, with ``-`` or ``_``, or by one of its aliases.

    Raises:
        BadInput: if there is none; the message lists the names.
    """
    wanted = name.strip().casefold().replace("_", "-")
    known = {entry.name: entry for entry in entries().values()}
    known.update({alias: entry for entry in entries().values() for alias in entry.aliases})
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise BadInput(f"unknown data set {name!r}{hint}; use one of: {', '.join(entries())}")
    return known[wanted]


def generic_trees(entry: DatasetEntry) -> dict[str, str]:
    """Return the generic layouts that ``entry`` may lie in: name to a drawing of the tree."""
    return _catalogue()["volumetric" if entry.is_volumetric else "generic"]


def expected(entry: DatasetEntry, *, all_layouts: bool = False) -> str:
    """Return what its folder should look like, several lines.

    Args:
        entry: the data set.
        all_layouts: draw the generic layouts, too, instead of naming them. They are always drawn for a set
            that has no layout of its own.
    """
    generic = generic_trees(entry)
    lines = entry.tree.rstrip().splitlines()
    if all_layouts or not lines:
        for name, tree in generic.items():
            lines += ["", f"or {name}:" if lines else f"{name}:", *tree.rstrip().splitlines()]
        return "\n".join(lines).strip("\n")
    names = ", ".join(generic)
    return "\n".join((*lines, "", f"or a generic layout: {names} (medzsad datasets info {entry.name})"))


@cache
def _catalogue() -> dict[str, Any]:
    import yaml

    return yaml.safe_load((Path(__file__).parent / "catalog.yaml").read_text(encoding="utf-8"))
