"""From the data sets that a recipe names to their images, volumes cut into slices among them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from medzsad.datasets.catalog import find_entry, name_in_texts
from medzsad.datasets.claims import claim, custom
from medzsad.datasets.opening import ROOT_VARIABLE, choose, open_dataset
from medzsad.datasets.samples import Sample, SampleSet
from medzsad.detectors.registry import detector_class
from medzsad.errors import BadInput
from medzsad.training.recipe import SYNTHETIC, DataSource, Recipe
from medzsad.training.slice_stacks import SliceSample, cut_volumes
from medzsad.training.synthetic_set import make_synthetic_set

SYNTHETIC_COUNT = 32


@dataclass(frozen=True)
class OpenedSource:
    """A data set that is there.

    Attributes:
        source: what the recipe says of it.
        name: in the catalogue.
        title, licence, home: of the data set.
        level: ``"image"`` (no masks) or ``"pixel"``.
        samples: its images.
        layout: that it was found in.
        claim: what may be said of its images (:mod:`medzsad.datasets.claims`); ``""`` for the name.
        volumes: how many volumes they were cut from; 0 for images.
        notes: what the user should read.
    """

    source: DataSource
    name: str
    title: str
    licence: str
    home: str
    level: str
    samples: tuple[Sample | SliceSample, ...]
    volumes: int = 0
    notes: tuple[str, ...] = ()
    layout: str = ""
    claim: str = ""

    @property
    def claimed(self) -> str:
        """What cards and adapters call it."""
        return self.claim or self.name

    @property
    def anomalous(self) -> int:
        """How many of the images are anomalous."""
        return sum(sample.label for sample in self.samples)

    @property
    def classes(self) -> tuple[str, ...]:
        """Its classes, in order."""
        return tuple(dict.fromkeys(sample.class_name for sample in self.samples))

    def name_in_texts(self, class_name: str, method: str) -> str:
        """Return what texts of a method call a class (:mod:`medzsad.datasets.catalog`)."""
        return name_in_texts(self.name, self.layout, class_name, method)

    def facts(self, method: str) -> dict[str, object]:
        """Return what an adapter of a method tells of the data set; JSON-serialisable, without folders."""
        facts: dict[str, object] = {
            "dataset": self.claimed,
            "title": self.title,
            "split": self.source.split,
            "classes": sorted(self.classes),
            "images": len(self.samples),
            "anomalous": self.anomalous,
            "volumes": self.volumes,
            "weight": self.source.weight,
            "licence": self.licence,
            "source": self.home,
        }
        if detector_class(method).uses_organ:
            facts["class_names"] = sorted({self.name_in_texts(one, method) for one in self.classes})
        return facts if self.volumes else {k: v for k, v in facts.items() if k != "volumes"}


def open_source(source: DataSource, folder: Path, *, side: int, limit: int | None = None) -> OpenedSource:
    """Open a data set of a recipe; make the synthetic one, and cut volumes into slices.

    Args:
        source: what the recipe says of it.
        folder: where images that are made, and slices, are kept.
        side: of the detector's input, in pixels.
        limit: where the recipe gives no limit for this set.

    Raises:
        BadInput: if it cannot be opened.
        OutputNotWritable: if ``folder`` cannot be written.
    """
    limit = source.limit if source.limit is not None else limit
    if source.dataset == SYNTHETIC:
        return _open_synthetic(source, folder, limit)
    entry = find_entry(source.dataset)
    found, claimed, reason = _open(source, limit)
    samples: tuple[Sample | SliceSample, ...] = found.images
    volumes, notes = len(found.volumes), found.notes
    title, licence, home = entry.title, entry.licence, entry.source
    if reason:
        notes = (*notes, f"not known to be {entry.name}: {reason}")
        title, licence, home = f"not known to be {entry.name}", f"unknown; of {entry.name}: {licence}", ""
    if found.is_volumetric:
        samples = cut_volumes(found.volumes, folder / "slices", plane=source.plane, side=side)
    level = "image" if found.level == "image" else "pixel"
    return OpenedSource(
        source, entry.name, title, licence, home, level, samples, volumes, notes, found.layout, claimed
    )


def open_all(recipe: Recipe, folder: Path) -> tuple[list[OpenedSource], list[OpenedSource]]:
    """Return the data sets to train on, and those to validate with.

    Raises:
        BadInput: if one cannot be opened, or nothing could be learned from them.
    """
    side = recipe.detector.image_size
    training = [open_source(source, folder, side=side) for source in recipe.data]
    if all(opened.level == "image" for opened in training) and recipe.loss.image == 0:
        raise BadInput(
            "none of the data sets has masks, and the image loss has weight 0: nothing can be learned"
        )
    validation = [
        open_source(source, folder, side=side, limit=recipe.validation.limit)
        for source in recipe.validation.data
    ]
    return training, validation


def count_data(recipe: Recipe) -> list[str]:
    """Return the data sets of a recipe in lines; nothing is made, cut or kept.

    Raises:
        BadInput: if one cannot be opened.
    """
    lines = [f"training: {_counted(source, source.limit)}" for source in recipe.data]
    for source in recipe.validation.data:
        limit = source.limit if source.limit is not None else recipe.validation.limit
        lines.append(f"validation: {_counted(source, limit)}")
    return lines


def describe(opened: OpenedSource) -> str:
    """Return a data set in one line."""
    count = f"{len(opened.samples)} images"
    if opened.volumes:
        count = f"{len(opened.samples)} slices of {opened.volumes} volumes"
    masks = "" if opened.level != "image" else ", no masks"
    name = f"{opened.name} ({opened.source.split})"
    return f"{name}, {count}, {opened.anomalous} anomalous{masks}{_said(opened.name, opened.claimed)}"


def _counted(source: DataSource, limit: int | None) -> str:
    name = f"{source.dataset} ({source.split})"
    if source.dataset == SYNTHETIC and source.root is None:
        return f"{name}, {limit or SYNTHETIC_COUNT} images, to be made"
    if source.dataset == SYNTHETIC:
        found, claimed = _own_images(source, limit)
    else:
        found, claimed, _ = _open(source, limit)
    said = _said(source.dataset, claimed)
    if found.is_volumetric:
        return f"{name}, {len(found)} volumes, to be cut into slices{said}"
    anomalous = sum(sample.label for sample in found.images)
    masks = "" if found.level != "image" else ", no masks"
    return f"{name}, {len(found)} images, {anomalous} anomalous{masks}{said}"


def _said(name: str, claimed: str) -> str:
    return "" if claimed == name else f"; the card says: {claimed}"


def _open(source: DataSource, limit: int | None) -> tuple[SampleSet, str, str]:
    """Return the samples, what may be claimed of them, and why it is not the set (see :func:`claim`)."""
    if source.root is None and not os.environ.get(ROOT_VARIABLE):
        name = source.dataset
        raise BadInput(
            f"where is {name}? give its folder with `data` {name}=DIR or as root in the recipe, or set "
            f"{ROOT_VARIABLE} to the folder that holds your data sets"
        )
    there = open_dataset(
        source.dataset, source.root, split=source.split, channel=source.channel, labels=source.labels
    )
    used = choose(there, classes=source.classes, limit=limit)
    return used, *claim(there, used.samples)


def _own_images(source: DataSource, limit: int | None) -> tuple[SampleSet, str]:
    found = open_dataset("folder", source.root, classes=source.classes, limit=limit)
    return found, custom(SYNTHETIC)


def _open_synthetic(source: DataSource, folder: Path, limit: int | None) -> OpenedSource:
    if source.root is None:
        count = SYNTHETIC_COUNT if limit is None else limit
        root = make_synthetic_set(folder / f"synthetic-{source.split}", count, split=source.split)
        title, licence = "textures with blobs, made by medzsad", "none needed"
        found, claimed = open_dataset("folder", root, classes=source.classes), SYNTHETIC
    else:
        found, claimed = _own_images(source, limit)
        title, licence = "your own images", "your own"
    return OpenedSource(
        source,
        SYNTHETIC,
        title,
        licence,
        "",
        found.level,
        found.images,
        notes=found.notes,
        layout=found.layout,
        claim=claimed,
    )
