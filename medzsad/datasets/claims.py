"""What may be said that an adapter was trained on: a set, a part of it, or images that may be any.

A folder is given under a set's name, but need not be that set. What can be told without the published files
is whether it has the set's classes, the set's own layout, and as many images. A claim says no more:

- ``visa``: all of it (of the split);
- ``visa (part: 24 of 2162 images)``: its classes, but fewer images, or the recipe chose fewer;
- ``custom: images given as visa``: other classes, more images than the set has, or, of a set of one class,
  which no names of classes tell, another number of images in a layout that any folder may have.

An adapter's claim outlives the folder, so that it says no more than what is sure. An evaluation keeps the
set's name, and what is published of it, until something speaks against it (:func:`contradiction`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from medzsad.datasets.catalog import GENERIC, NAMED_LAYOUTS, VOLUMETRIC, DatasetEntry, find_entry
from medzsad.datasets.samples import Sample, SampleSet, VolumeSample

CUSTOM = "custom: "
_GIVEN_AS = " given as "
_PART = " (part: "
ONES_OWN = ("folder", "volumes")
"""Names in the catalogue of data of one's own."""


def claim(samples: SampleSet, used: Sequence[Sample | VolumeSample]) -> tuple[str, str]:
    """Return what may be said of images of a data set, and why it is not the set's name alone.

    Args:
        samples: the split as it lies on disk, before anything was chosen.
        used: the samples that are trained on.

    Returns:
        The claim, see above, and the reason for ``custom``; ``""`` otherwise.
    """
    entry = find_entry(samples.name)
    if not entry.classes:
        return entry.name, ""
    unit = "volumes" if samples.is_volumetric else "images"
    classes, there, known = _counted(entry, samples, used)
    reason = contradiction(samples, used) or _undecided(entry, samples, there, unit)
    if reason:
        return custom(entry.name, unit), reason
    whole = known if known is not None else len(samples)
    if len(used) < whole:
        return f"{entry.name}{_PART}{len(used)} of {whole} {unit})", ""
    missing = len(entry.classes) - len({_plain(name) for name in classes})
    if known is None and missing > 0:
        return f"{entry.name}{_PART}{len(entry.classes) - missing} of {len(entry.classes)} classes)", ""
    return entry.name, ""


def contradiction(samples: SampleSet, used: Sequence[Sample | VolumeSample]) -> str:
    """Return what speaks against images being of the set that they are given as; ``""`` if nothing does.

    Args:
        samples, used: see :func:`claim`.
    """
    entry = find_entry(samples.name)
    if not entry.classes:
        return ""
    classes, there, known = _counted(entry, samples, used)
    if known is not None and there > known:
        unit = "volumes" if samples.is_volumetric else "images"
        return f"{there} {unit}, but {entry.name} has {known} in its {samples.split} split"
    if len(entry.classes) == 1:
        return ""
    if samples.layout not in NAMED_LAYOUTS:
        return f"nothing names the classes in layout {samples.layout}"
    ours = {_plain(name) for name in entry.classes}
    others = sorted(name for name in classes if _plain(name) not in ours)
    return f"{entry.name} has no class {_listed(others)}" if others else ""


def _counted(
    entry: DatasetEntry, samples: SampleSet, used: Sequence[Sample | VolumeSample]
) -> tuple[set[str], int, int | None]:
    """Return the classes of what is used, how many samples of these lie there, and how many the split has."""
    classes = {sample.class_name for sample in used}
    there = sum(sample.class_name in classes for sample in samples)
    return classes, there, entry.counts.get(samples.split)


def custom(name: str, unit: str = "images") -> str:
    """Return the claim for data of one's own that were given under a set's name."""
    return f"{CUSTOM}{unit}{_GIVEN_AS}{name}"


def title(name: str, doubt: str, level: str) -> str:
    """Return what figures are of: the data set, or data of one's own that were given under its name.

    Args:
        name, doubt, level: of a :class:`~medzsad.datasets.samples.SampleSet`.
    """
    return custom(name, "volumes" if level == "voxel" else "images") if doubt else name


def sets_of(claimed: str) -> tuple[str, ...]:
    """Return the sets that a claim may have images of; on these, results are not zero-shot."""
    if claimed.startswith(CUSTOM):
        return claimed.rpartition(_GIVEN_AS)[2], *ONES_OWN
    return (claimed.partition(_PART)[0],)


def _undecided(entry: DatasetEntry, samples: SampleSet, there: int, unit: str) -> str:
    known = entry.counts.get(samples.split)
    if len(entry.classes) > 1 or samples.layout not in ("meta.json", *GENERIC, *VOLUMETRIC) or there == known:
        return ""
    counted = f", and {entry.name} has {known} {unit}, not {there}" if known is not None else ""
    return f"any folder may have layout {samples.layout}{counted}"


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")


def _listed(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
