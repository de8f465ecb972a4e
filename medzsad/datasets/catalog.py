"""The catalogue of data sets, and what texts call their classes. Neither numpy nor torch is imported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.detectors.organs import OBJECT
from medzsad.errors import BadInput

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

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
        own_layouts: its own layouts, the published one first (:data:`medzsad.datasets.opening.READERS`).
        class_name: what an image shows, for texts; None where the classes say it.
        names: what a method's own code calls it in texts, by method (:mod:`medzsad.datasets.catalog`).
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


NAMED_LAYOUTS = ("mvtec", "bmad", "visa", "ksdd", "dagm", "dagm-balanced", "meta.json")
"""Layouts that name classes, by folders or in a list; in others a class is called like the set's folder."""


def name_in_texts(dataset: str, layout: str, class_name: str, method: str) -> str:
    """Return what texts of a method call a class.

    AdaCLIP and WinCLIP put a class's name into their texts. Their authors' code and the public
    re-implementations take the name of the class's folder as it is, underscores included; AdaCLIP's code
    makes hyphens spaces, which :func:`~medzsad.detectors.clip.state_prompts.state_prompts` does for all
    methods. The first rule that fits, unless `class_name` or `organ` says what it is to be:

    1. The name that a method's own code has for the set: ``names`` in ``catalog.yaml`` (AdaCLIP:
       ``brain_mri``).
    2. For a set of one class, the catalogue's ``class_name`` (``brain``): AnomalyCLIP's, for papers' sets.
    3. The class's folder, or its name in the set's own list: ``metal_nut``.
    4. ``object``, where nothing names a class: one's own ``images/`` and ``masks/``, or volumes.

    Args:
        dataset: the set's name in the catalogue; others have no rule of their own.
        layout: that it was found in (:data:`medzsad.datasets.opening.READERS`).
        class_name: of its samples.
        method: of the detector, e.g. ``"adaclip"``.
    """
    entry = entries().get(dataset)
    if entry is not None and method in entry.names:
        return entry.names[method]
    if entry is not None and entry.class_name is not None:
        return entry.class_name
    named = layout in NAMED_LAYOUTS and bool(class_name.replace("-", " ").strip())
    return class_name if named else OBJECT.class_name


def by_class(
    detector: AnomalyDetector,
    dataset: str,
    layout: str,
    classes: Iterable[str],
    *,
    class_name: str | None = None,
) -> dict[str, AnomalyDetector]:
    """Return a detector for each class of a data set, whose texts speak of it; all share their weights.

    Args:
        detector: a loaded detector; it stays as it is.
        dataset, layout: see :func:`name_in_texts`.
        classes: of the set's samples.
        class_name: what texts call all of them instead.

    Raises:
        BadInput, ModelNotReady: see :meth:`AnomalyDetector.for_classes`.
    """
    names = {one: class_name or name_in_texts(dataset, layout, one, detector.method) for one in classes}
    told = detector.for_classes(names.values())
    return {one: told[name] for one, name in names.items()}
