"""The samples of a data set by name: find its folder, find its layout, read it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medzsad.datasets import folder_layouts, listed, raw_defects, volumes
from medzsad.datasets.catalog import DatasetEntry, expected, find_entry
from medzsad.datasets.claims import claim, contradiction
from medzsad.datasets.reading import SPLITS, Found, Request, descend, entries, relative_id, subfolders
from medzsad.datasets.samples import Sample, SampleSet, VolumeSample, spread
from medzsad.errors import BadInput
from medzsad.settings import Settings

Reader = Callable[[Path, Request], Found | None]

READERS: dict[str, Reader] = {
    "meta.json": listed.read_meta,
    "mvtec": folder_layouts.read_mvtec,
    "images-masks": folder_layouts.read_images_masks,
    "yes-no": folder_layouts.read_yes_no,
    "visa": listed.read_visa,
    "ksdd": raw_defects.read_ksdd,
    "dagm": raw_defects.read_dagm,
    "dagm-balanced": raw_defects.read_dagm_balanced,
    "headct": listed.read_headct,
    "covid": folder_layouts.read_covid,
    "covid-all": folder_layouts.read_covid_all,
    "isic": folder_layouts.reader_of(folder_layouts.ISIC),
    "tn3k": folder_layouts.reader_of(folder_layouts.TN3K),
    "clinicdb": folder_layouts.reader_of(folder_layouts.CLINICDB),
    "colondb": folder_layouts.read_colondb,
    "bmad": folder_layouts.read_bmad,
    "datalist": volumes.read_datalist,
    "image-label-folders": volumes.read_pairs,
    "cases": volumes.read_cases,
}
"""Each returns None where its layout does not fit."""


def find_layout(
    bases: Sequence[Path], layouts: Iterable[Sequence[str]], request: Request
) -> tuple[str, Path, Found] | None:
    """Return the first layout that fits.

    Args:
        bases: the places, the likeliest first.
        layouts: groups of layouts. A group is tried at every place before the next group: a set's own
            layout in an unlikely folder counts more than a generic one in a likely folder (the lung masks of
            COVID-19 look like ``images/`` and ``masks/``).
        request: what is wanted.

    Returns:
        Its name, the place and what was found there; None if nothing fits anywhere.

    Raises:
        BadInput: a layout fits, but a file that it needs is broken.
    """
    for group in layouts:
        for base in bases:
            for name in group:
                if base.is_file() and name != "datalist":
                    continue
                found = READERS[name](base, request)
                if found is not None:
                    return name, base, found
    return None


Samples = tuple[Sample | VolumeSample, ...]

ROOT_VARIABLE = "MEDZSAD_DATA"
DEEPEST_WRAPPER = 3  # folders that hold nothing but one folder, as archives leave them


class DatasetQuery(Settings):
    """Which samples of which data set: the arguments of :func:`open_dataset`."""

    name: str
    root: str | Path | None = None
    split: str = "test"
    classes: tuple[str, ...] | None = None
    limit: int | None = None
    seed: int = 0
    channel: str | None = None
    labels: tuple[int, ...] | None = None
    patterns: Mapping[str, str] | None = None

    def open(self) -> SampleSet:
        """Return the samples; see :func:`open_dataset`."""
        return open_dataset(**vars(self))


def open_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    split: str = "test",
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    channel: str | None = None,
    labels: Sequence[int] | None = None,
    patterns: Mapping[str, str] | None = None,
) -> SampleSet:
    """Return the samples of a data set, in a fixed order that is the same on every machine.

    >>> samples = open_dataset("brainmri", "/data/brainmri")      # doctest: +SKIP
    >>> len(samples), samples[0].label, samples[0].read_image()   # doctest: +SKIP

    Args:
        name: a name of the catalogue; ``"folder"`` and ``"volumes"`` for data of one's own.
        root: its folder, or a folder that holds it under its name; for volumes also a JSON list. Without it
            the folder that ``MEDZSAD_DATA`` names.
        split: ``"test"``, ``"train"`` or ``"valid"``. Layouts without splits are all test.
        classes: only these classes.
        limit: only so many samples: every class and label in proportion and at least once if possible, evenly
            spread over the order within (:func:`medzsad.datasets.samples.spread`).
        seed: of ``limit``.
        channel: of volumes with several images: a word of the file name, a name of the list, or a number.
        labels: of volumes: the label values that are anomalous. Default: all above 0.
        patterns: of volumes in folders per case: file name patterns for ``"image"``, ``"label"`` and
            ``"foreground"``, instead of guessing.

    Returns:
        The samples. What could not become one is counted in :attr:`SampleSet.notes`, which also say why a
        folder cannot be taken for the set.

    Raises:
        BadInput: unknown name, split or class; no such folder; no layout fits (the message shows the expected
            tree); the split is empty.
    """
    found, _ = open_with_problems(name, root, split=split, channel=channel, labels=labels, patterns=patterns)
    chosen = choose(found, classes=classes, limit=limit, seed=seed)
    claimed, reason = claim(found, chosen.samples)
    doubt = contradiction(found, chosen.samples)
    if reason and not doubt:
        claimed = f"a part of {found.name}, or images of one's own"
    return replace(chosen, doubt=doubt, notes=(*chosen.notes, *([f"{claimed}: {reason}."] if reason else ())))


def choose(
    samples: SampleSet, *, classes: Sequence[str] | None = None, limit: int | None = None, seed: int = 0
) -> SampleSet:
    """Return some of the samples; ``classes``, ``limit`` and ``seed`` are those of :func:`open_dataset`.

    Raises:
        BadInput: unknown class, or a limit below 1.
    """
    if classes is not None:
        samples = _only(samples, classes)
    if limit is not None:
        samples = replace(samples, samples=spread(samples.samples, limit, seed))
    return samples


def open_with_problems(
    name: str,
    root: str | Path | None = None,
    *,
    split: str = "test",
    channel: str | None = None,
    labels: Sequence[int] | None = None,
    patterns: Mapping[str, str] | None = None,
) -> tuple[SampleSet, Found]:
    """As :func:`open_dataset`, with what the layout's reader found, its problems included."""
    entry = find_entry(name)
    if split not in SPLITS:
        raise BadInput(f"unknown split {split!r}; use one of: {', '.join(SPLITS)}")
    if channel is not None and not entry.is_volumetric:
        raise BadInput(f"{entry.name} is no set of volumes: `channel` cannot be; leave it out.")
    folder = _root(entry, root)
    request = Request(
        split=split,
        class_name=entry.classes[0] if len(entry.classes) == 1 else None,
        name=entry.name,
        channel=channel if channel is not None else entry.channel,
        positive=None if labels is None else tuple(int(value) for value in labels),
        patterns=dict(patterns or {}),
    )
    match = find_layout(places(entry, folder), entry.layouts, request)
    if match is None:
        tree = "\n".join(f"  {line}".rstrip() for line in expected(entry).splitlines())
        raise BadInput(
            f"{folder} holds no {entry.name} in a layout that is known; it should look like this, "
            f"DIR being that folder:\n{tree}"
        )
    layout, base, found = match
    if not found.samples and not found.problems:
        raise BadInput(f"{base} (layout {layout}) has no {split} split; choose another with `split`.")
    if not found.samples:
        problem = found.problems[0]
        raise BadInput(f"{base} (layout {layout}) has no usable sample: {problem.path}: {problem.message}.")
    if entry.is_volumetric:
        level = "voxel"
    else:
        has_masks = any(isinstance(one, Sample) and one.mask is not None for one in found.samples)
        level = "pixel" if has_masks else "image"
    notes = found.notes
    if level == "image" and entry.level == "pixel" and entry.classes:
        notes = (*notes, "No masks were found: only labels can be compared.")
    left_out = [problem for problem in found.problems if problem.kind == "unlabelled"]
    if left_out:
        # Without the folder: notes go into result files.
        first = relative_id(left_out[0].path, base)
        notes = (
            *notes,
            f"{len(left_out)} left out, the first {first}: {left_out[0].message} "
            f"(medzsad datasets check {entry.name} lists all).",
        )
    found = replace(found, samples=_with_own_ids(found.samples))
    return SampleSet(entry.name, base, layout, split, level, found.samples, notes), found


def _with_own_ids(samples: Samples) -> Samples:
    """Return the samples, each with an id of its own.

    Lists may name files of one name outside the set's folder.
    """
    seen: set[str] = set()
    unique: list[Sample | VolumeSample] = []
    for sample in samples:
        name, number = sample.id, 1
        while name in seen:
            number += 1
            name = f"{sample.id} ({number})"
        seen.add(name)
        unique.append(sample if name == sample.id else replace(sample, id=name))
    return tuple(unique)


def places(entry: DatasetEntry, root: Path) -> list[Path]:
    """Where a set may lie for a given root, the likeliest first.

    Under its names below the root, at the root, and in folders that are alone in those, as archives leave
    them.
    """
    if root.is_file():
        return [root]
    names = dict.fromkeys((entry.name, *entry.folders)) if entry.classes else ()
    below = [path for name in names if (path := descend(root, name)) is not None]
    found = [*below, root]
    for start in tuple(found):
        only = start
        for _ in range(DEEPEST_WRAPPER):
            inside = subfolders(only)
            if len(inside) != 1:
                break
            only = inside[0]
            found.append(only)
            found += [path for name in names if (path := descend(only, name)) is not None]
    return list(dict.fromkeys(found))


def _root(entry: DatasetEntry, root: str | Path | None) -> Path:
    if root is None:
        named = os.environ.get(ROOT_VARIABLE)
        if not named:
            raise BadInput(
                f"where is {entry.name}? give its folder with `root`, or set {ROOT_VARIABLE} to the folder "
                "that holds your data sets."
            )
        root = named
    folder = Path(root).expanduser()
    if not folder.exists():
        raise BadInput(f"{folder} does not exist; check the path.")
    if folder.is_file() and not (entry.is_volumetric and folder.suffix.casefold() == ".json"):
        raise BadInput(f"{folder} is a file; give the data set's folder.")
    if folder.is_dir() and not entries(folder):
        raise BadInput(f"{folder} is empty; put {entry.name} there (medzsad datasets info {entry.name}).")
    return folder


def _only(found: SampleSet, classes: Sequence[str]) -> SampleSet:
    known = {name.casefold(): name for name in found.classes}
    unknown = [name for name in classes if name.casefold() not in known]
    if unknown:
        raise BadInput(f"{found.name} has no class {unknown[0]!r} here; it has {', '.join(found.classes)}.")
    wanted = {known[name.casefold()] for name in classes}
    return replace(found, samples=tuple(sample for sample in found if sample.class_name in wanted))
