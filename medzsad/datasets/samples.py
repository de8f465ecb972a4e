"""Samples, images or volumes with what is known to be anomalous in them; and a choice that stands for all."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

from medzsad.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from medzsad.scans.scan import Scan

GOOD = "good"
"""The kind of every normal sample, whatever its folder is called."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image.

    Attributes:
        image: its file.
        label: 1 anomalous, 0 normal.
        mask: file of its mask; None if there is none.
        class_name: the class it belongs to, such as ``"bottle"`` or ``"brain"``.
        kind: what is wrong with it, such as ``"scratch"``; :data:`GOOD` if it is normal.
        id: unique in the data set and the same on every machine.
    """

    image: Path
    label: int
    mask: Path | None
    class_name: str
    kind: str
    id: str

    def read_image(self) -> np.ndarray:
        """Return the image, float32 (3, H, W) in [0, 1] (:func:`medzsad.datasets.images.read_image`)."""
        from medzsad.datasets.images import read_image

        return read_image(self.image)

    def read_mask(self, rule: str = "half") -> np.ndarray:
        """Return what is anomalous, bool (H, W) of the image's size.

        Args:
            rule: of :func:`medzsad.datasets.images.read_mask`. All is False in a normal image without a mask,
                by ``"published"`` in every normal image.

        Raises:
            BadInput: the mask is missing, unreadable, or of another size than the image.
        """
        import numpy as np

        from medzsad.datasets.images import image_size, read_mask

        size = image_size(self.image)
        if rule == "published" and not self.label:
            return np.zeros(size, dtype=bool)
        if self.mask is None:
            if self.label:
                raise BadInput(f"{self.image} is anomalous and has no mask; only its label can be used.")
            return np.zeros(size, dtype=bool)
        mask = read_mask(self.mask, rule)
        if mask.shape != size:
            raise BadInput(
                f"{self.mask} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[1]} x {size[0]}; "
                "make them the same."
            )
        return mask


@dataclass(frozen=True, slots=True)
class VolumeSample:
    """One volume with a label volume.

    Attributes:
        image: NIfTI file of the scan.
        label: NIfTI file that marks what is anomalous.
        foreground: NIfTI file of what may be compared at all, such as a brain mask; None if there is none.
        class_name: the class it belongs to.
        id: unique in the data set and the same on every machine.
        channel: which of several images of the case this is, such as ``"flair"``; None if there is one.
        volume: which volume of a 4D ``image``, from 0; None if it is 3D.
        positive: label values that are anomalous; None for all above 0.
    """

    image: Path
    label: Path
    foreground: Path | None
    class_name: str
    id: str
    channel: str | None = None
    volume: int | None = None
    positive: tuple[int, ...] | None = None

    def read_scan(self) -> Scan:
        """Return the scan (:func:`medzsad.scans.readers.read_scan`)."""
        from medzsad.scans.readers import read_scan

        return read_scan(self.image, volume=self.volume)

    def read_label(self) -> np.ndarray:
        """Return what is anomalous, bool (X, Y, Z).

        Raises:
            BadInput: the label cannot be read, or is not on the image's grid.
        """
        from medzsad.datasets.images import read_label

        return read_label(self.label, self.image, self.positive)

    def read_foreground(self) -> np.ndarray | None:
        """Return what may be compared, bool (X, Y, Z); None if the set does not say.

        Raises:
            BadInput: as for :meth:`read_label`.
        """
        from medzsad.datasets.images import read_label

        return None if self.foreground is None else read_label(self.foreground, self.image, None)


@dataclass(frozen=True)
class SampleSet(Sequence[Sample | VolumeSample]):
    """The samples of one data set on this disk, in a fixed order.

    Attributes:
        name: the data set's name in the catalogue.
        root: the folder that the layout was found in.
        layout: the layout's name.
        split: ``"test"``, ``"train"`` or ``"valid"``.
        level: what can be compared: ``"image"`` (no masks), ``"pixel"`` or ``"voxel"``.
        samples: all :class:`Sample`, or all :class:`VolumeSample`.
        notes: sentences that the user should read: what was left out, chosen or assumed.
        doubt: why it cannot be taken for the data set of that name (:mod:`medzsad.datasets.claims`); ``""``
            where nothing speaks against it.
    """

    name: str
    root: Path
    layout: str
    split: str
    level: str
    samples: tuple[Sample | VolumeSample, ...]
    notes: tuple[str, ...] = ()
    doubt: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample | VolumeSample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample | VolumeSample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | VolumeSample | tuple[Sample | VolumeSample, ...]:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample | VolumeSample]:
        return iter(self.samples)

    @property
    def images(self) -> tuple[Sample, ...]:
        """The samples that are images: all or none."""
        return tuple(sample for sample in self.samples if isinstance(sample, Sample))

    @property
    def volumes(self) -> tuple[VolumeSample, ...]:
        """The samples that are volumes: all or none."""
        return tuple(sample for sample in self.samples if isinstance(sample, VolumeSample))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in it, in order."""
        return tuple(dict.fromkeys(sample.class_name for sample in self.samples))

    @property
    def is_volumetric(self) -> bool:
        """Whether it holds :class:`VolumeSample`."""
        return self.level == "voxel"

    def counts(self) -> dict[str, dict[str, int]]:
        """How many samples of each kind a class has: ``{"bottle": {"good": 20, "contamination": 21}}``.

        Whether a volume holds anomalies is not known before its label is read: its kind is ``"volume"``.
        """
        found: dict[str, Counter[str]] = {name: Counter() for name in self.classes}
        for sample in self.samples:
            found[sample.class_name][getattr(sample, "kind", "volume")] += 1
        return {name: dict(counter) for name, counter in found.items()}


AnySample = TypeVar("AnySample", bound=Sample | VolumeSample)


def spread(samples: Sequence[AnySample], limit: int, seed: int = 0) -> tuple[AnySample, ...]:
    """At most ``limit`` samples, in their order.

    Each class and label gets its share (largest remainders), and at least one sample as long as the limit
    allows. Within it the samples are evenly spread over the order: one of every n/k, at the same random place
    of each stretch. So neighbours, which often are slices of one patient, are not taken together.

    Args:
        samples: what to choose from.
        limit: 1 or more.
        seed: of the random places; the same seed gives the same samples on every machine.

    Raises:
        BadInput: if ``limit`` is less than 1.
    """
    if limit < 1:
        raise BadInput(f"the limit must be at least 1, not {limit}.")
    if limit >= len(samples):
        return tuple(samples)
    groups: dict[tuple[str, int], list[int]] = {}
    for index, sample in enumerate(samples):
        label = sample.label if isinstance(sample, Sample) else 0  # a volume's is not known yet
        groups.setdefault((sample.class_name, label), []).append(index)
    dice = random.Random(seed)
    chosen: list[int] = []
    for members, quota in zip(
        groups.values(), _quotas([len(g) for g in groups.values()], limit), strict=True
    ):
        place = dice.random()
        chosen += [members[int((i + place) * len(members) / quota)] for i in range(quota)]
    return tuple(samples[index] for index in sorted(chosen))


def _quotas(sizes: Sequence[int], limit: int) -> list[int]:
    """``limit`` split in proportion to ``sizes``, none above its size, none 0 if ``limit`` allows."""
    total = sum(sizes)
    exact = [limit * size / total for size in sizes]
    quotas = [int(share) for share in exact]
    if limit >= len(sizes):
        quotas = [max(1, quota) for quota in quotas]
    while sum(quotas) < limit:
        room = [i for i in range(len(sizes)) if quotas[i] < sizes[i]]
        quotas[max(room, key=lambda i: (exact[i] - quotas[i], -i))] += 1
    while sum(quotas) > limit:
        spare = [i for i in range(len(sizes)) if quotas[i] > 1]
        quotas[min(spare, key=lambda i: (exact[i] - quotas[i], -i))] -= 1
    return quotas
