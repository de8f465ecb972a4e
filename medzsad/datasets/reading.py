"""What layout readers are asked and what they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medzsad.datasets.samples import Sample, VolumeSample


@dataclass(frozen=True)
class Request:
    """What is wanted of a data set.

    Attributes:
        split: ``"test"``, ``"train"`` or ``"valid"``.
        class_name: the class of a set that has one; None where folders name the classes.
        name: the data set's name.
        channel: of volumes: which of a case's images.
        positive: of volumes: the label values that are anomalous; None for all above 0.
        patterns: of volumes: file name patterns for ``"image"``, ``"label"`` and ``"foreground"``.
        probe: whether only the layout is asked for: masks are not read (samples with one count as anomalous),
            and nothing is prepared.
    """

    split: str = "test"
    class_name: str | None = None
    name: str = "folder"
    channel: str | None = None
    positive: tuple[int, ...] | None = None
    patterns: Mapping[str, str] = field(default_factory=dict)
    probe: bool = False


@dataclass(frozen=True)
class Problem:
    """Something about a copy of a data set that is not as it should be.

    Attributes:
        kind: one of the keys of :data:`KINDS`.
        path: the file it is about.
        message: the rest of the sentence, for people.
    """

    kind: str
    path: Path
    message: str

    @property
    def is_error(self) -> bool:
        """Whether figures on this copy would be wrong or cannot be computed."""
        return KINDS[self.kind][1]


# Kind -> (words for lists, whether it is an error).
KINDS: dict[str, tuple[str, bool]] = {
    "unreadable": ("unreadable files", True),
    "unlabelled": ("images or cases that nothing says the truth of", True),
    "missing-mask": ("missing masks", True),
    "size": ("masks of another size or grid than their image", True),
    "empty-mask": ("empty masks of anomalous images", True),
    "mask-of-normal": ("normal images with something marked", True),
    "conflict": ("identical files with different labels", True),
    "label-values": ("labels with values that are no whole numbers from 0 on", False),
    "duplicate": ("exact duplicates", False),
    "unused-mask": ("masks without an image", False),
}


@dataclass(frozen=True)
class Found:
    """What a reader found where its layout fits.

    Attributes:
        samples: in their final order; empty if the layout fits but does not have the split.
        problems: what could not become a sample, and masks that nothing belongs to.
        notes: sentences that the user should read.
    """

    samples: tuple[Sample | VolumeSample, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
