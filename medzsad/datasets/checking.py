"""Whether a copy of a data set is whole: counts, masks, unreadable files, duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medzsad.datasets.images import label_values, marks_of, read_image, read_mask, same_grid
from medzsad.datasets.opening import open_with_problems
from medzsad.datasets.reading import KINDS, Problem
from medzsad.datasets.samples import GOOD, Sample, SampleSet, VolumeSample
from medzsad.errors import BadInput
from medzsad.storage.hashing import hash_files

READERS = 4


@dataclass(frozen=True)
class CheckReport:
    """What was found in a copy of a data set.

    Attributes:
        samples: what was checked.
        counts: class to kind to number; the kinds of volumes are ``"good"`` (empty label) and ``"anomaly"``.
        masks: how many masks, or label volumes, there are.
        problems: everything that is not as it should be, in the samples' order within each kind.
    """

    samples: SampleSet
    counts: dict[str, dict[str, int]]
    masks: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; exact duplicates with the same label and unused masks are no errors."""
        return not any(problem.is_error for problem in self.problems)

    @property
    def normal(self) -> int:
        """How many samples are normal."""
        return sum(kinds.get(GOOD, 0) for kinds in self.counts.values())

    @property
    def anomalous(self) -> int:
        """How many samples are anomalous."""
        return sum(sum(kinds.values()) for kinds in self.counts.values()) - self.normal

    def of_kind(self, kind: str) -> list[Problem]:
        """Return the problems of one kind (:data:`medzsad.datasets.reading.KINDS`)."""
        return [problem for problem in self.problems if problem.kind == kind]

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {
            "dataset": self.samples.name,
            "folder": str(self.samples.root),
            "layout": self.samples.layout,
            "split": self.samples.split,
            "level": self.samples.level,
            "samples": len(self.samples),
            "normal": self.normal,
            "anomalous": self.anomalous,
            "masks": self.masks,
            "classes": self.counts,
            "ok": self.ok,
            "problems": [
                {
                    "kind": problem.kind,
                    "error": problem.is_error,
                    "file": str(problem.path),
                    "message": problem.message,
                }
                for problem in self.problems
            ],
            "notes": list(self.samples.notes),
        }


def check_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    split: str = "test",
    channel: str | None = None,
    labels: Sequence[int] | None = None,
    progress: Callable[[], None] | None = None,
) -> CheckReport:
    """Read every file of a data set's split and say what is wrong.

    Duplicates are files of the same bytes (SHA-256); the same picture saved twice is not found. Identical
    files with different labels are errors, others are only told: some published sets have them.

    Args:
        name: as for :func:`medzsad.datasets.opening.open_dataset`, like ``root``, ``split``, ``channel`` and
            ``labels``.
        root: see there.
        split: see there.
        channel: see there.
        labels: see there.
        progress: called after each sample.

    Raises:
        BadInput: the data set cannot be opened at all.
    """
    samples, found = open_with_problems(name, root, split=split, channel=channel, labels=labels)
    look = _look_at_volume if samples.is_volumetric else _look_at_image
    looks: list[_Look] = []
    with ThreadPoolExecutor(READERS) as pool:
        for seen in pool.map(look, samples):
            looks.append(seen)
            if progress is not None:
                progress()
    any_mask = any(getattr(sample, "mask", None) is not None for sample in samples)
    problems = [*found.problems]
    for sample, seen in zip(samples, looks, strict=True):
        problems += seen.problems
        if isinstance(sample, Sample) and sample.label and sample.mask is None and any_mask:
            problems.append(Problem("missing-mask", sample.image, "anomalous, and there is no mask for it"))
    problems += _duplicates(samples, looks)
    order = list(KINDS)
    problems.sort(key=lambda problem: order.index(problem.kind))  # stable
    counts: dict[str, Counter[str]] = {name: Counter() for name in samples.classes}
    for sample, seen in zip(samples, looks, strict=True):
        counts[sample.class_name][seen.kind] += 1
    masks = sum(getattr(sample, "mask", True) is not None for sample in samples)
    return CheckReport(samples, {name: dict(found) for name, found in counts.items()}, masks, tuple(problems))


@dataclass(frozen=True)
class _Look:
    """What reading one sample showed."""

    kind: str
    label: int
    digest: str | None
    problems: tuple[Problem, ...]


def _look_at_image(sample: Sample) -> _Look:
    problems: list[Problem] = []
    shape = mask = None
    try:
        shape = read_image(sample.image).shape[1:]
    except BadInput as error:
        problems.append(_unreadable(sample.image, error))
    if sample.mask is not None:
        try:
            mask = read_mask(sample.mask)
        except BadInput as error:
            problems.append(_unreadable(sample.mask, error))
    if sample.mask is not None and mask is not None:
        if shape is not None and mask.shape != shape:
            sizes = [f"{width} x {height}" for height, width in (mask.shape, shape)]
            problems.append(Problem("size", sample.mask, f"it is {sizes[0]} pixels, its image {sizes[1]}"))
        if sample.label and not mask.any():
            problems.append(
                Problem("empty-mask", sample.mask, "nothing is marked, but the image is anomalous")
            )
        if not sample.label and mask.any():
            problems.append(
                Problem("mask-of-normal", sample.mask, "something is marked, but the image is normal")
            )
    return _Look(sample.kind, sample.label, _digest(sample.image), tuple(problems))


def _look_at_volume(sample: VolumeSample) -> _Look:
    problems: list[Problem] = []
    label = None
    try:
        sample.read_scan()
    except BadInput as error:
        problems.append(_unreadable(sample.image, error))
    for path in (sample.label, sample.foreground):
        if path is None:
            continue
        try:
            reason = same_grid(path, sample.image)
            if reason:
                problems.append(Problem("size", path, reason))
            else:
                values = label_values(path)
                positive = sample.positive if path == sample.label else None
                found = marks_of(values, path, positive)
                label = found if path == sample.label else label
                odd = _odd_values(values)
                if odd:
                    problems.append(Problem("label-values", path, odd))
        except BadInput as error:
            if not any(problem.path == sample.image for problem in problems):
                problems.append(_unreadable(path, error))
    marked = int(label is None or label.any())
    digest = _digest(sample.image) if sample.volume is None else None
    return _Look("anomaly" if marked else GOOD, marked, digest, tuple(problems))


def _odd_values(values: np.ndarray) -> str:
    """Return what is odd about the values of a label, and what is made of it; empty if nothing is."""
    off = np.abs(values - np.rint(values))
    if off.max() > 0:
        place = np.unravel_index(off.argmax(), off.shape)
        count, example = np.count_nonzero(off), values[place]
        return f"{count} values are no whole numbers, such as {example:.6g}; they are rounded"
    if values.min() < 0:
        return f"{np.count_nonzero(values < 0)} values are below 0 and count as nothing"
    return ""


def _unreadable(path: Path, error: BadInput) -> Problem:
    text = str(error)
    reason = text.removeprefix(str(path)).lstrip(" :")
    return Problem("unreadable", path, reason.rstrip("."))


def _digest(path: Path) -> str | None:
    try:
        return hash_files(path)
    except BadInput:
        return None


def _duplicates(samples: SampleSet, looks: Iterable[_Look]) -> list[Problem]:
    first: dict[str, tuple[Sample | VolumeSample, int]] = {}
    problems = []
    for sample, seen in zip(samples, looks, strict=True):
        if seen.digest is None:
            continue
        other, label = first.setdefault(seen.digest, (sample, seen.label))
        if other.image == sample.image:
            continue
        if label != seen.label:
            words = ["normal", "anomalous"]
            text = f"{words[seen.label]}, and the same bytes as {other.id}, which is {words[label]}"
            problems.append(Problem("conflict", sample.image, text))
        else:
            problems.append(Problem("duplicate", sample.image, f"the same bytes as {other.id}"))
    return problems
