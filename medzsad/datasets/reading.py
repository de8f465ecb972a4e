"""What layout readers are asked and answer, and folders as people leave them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medzsad.datasets.samples import GOOD, Sample, VolumeSample
from medzsad.errors import BadInput
from medzsad.scans.images2d import is_image


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


IGNORED = {"__macosx", "thumbs.db", "desktop.ini"}
NORMAL_FOLDERS = ("good", "ok", "normal", "healthy")
SPLITS = {
    "test": ("test", "testing"),
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
}
# What people add to a set's name where they keep a part of it.
PARTS = r"[-_ ](mini|small|subset|sample|part)$"
# What may follow an image's stem in the name of its mask, the most specific spelling last.
MASK_ENDINGS = (
    "",
    "_mask",
    "-mask",
    ".mask",
    "_segmentation",
    "_label",
    "_labels",
    "_seg",
    "_gt",
    "_groundtruth",
)


def natural_key(path: Path | str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sorts ``2.png`` before ``10.png``, whatever the case; the same on every system."""
    text = path.as_posix() if isinstance(path, Path) else path
    parts = re.split(r"([0-9]+)", text.casefold())  # every second part is a number
    return tuple((int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)), text


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder, naturally sorted, without hidden files and what systems leave behind.

    Raises:
        BadInput: if the folder cannot be listed.
    """
    try:
        found = list(folder.iterdir())
    except OSError as error:
        raise BadInput(f"{folder} cannot be listed ({error.strerror or error}); check the path.") from error
    visible = (path for path in found if not path.name.startswith(".") and path.name.lower() not in IGNORED)
    return sorted(visible, key=lambda path: natural_key(path.name))


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder; links to folders count."""
    return [path for path in entries(folder) if path.is_dir()]


def images_in(folder: Path) -> list[Path]:
    """Return the image files directly in a folder."""
    return [path for path in entries(folder) if is_image(path) and path.is_file()]


def unwrapped(folder: Path) -> Path:
    """Return the folder that holds the images, where an archive's tool put a folder into one of its own.

    That is ``folder``, or the only folder in it if it holds no image itself (``head_ct/head_ct/000.png``).
    """
    inside = [] if images_in(folder) else subfolders(folder)
    return inside[0] if len(inside) == 1 and images_in(inside[0]) else folder


def child(folder: Path, *names: str) -> Path | None:
    """Return the folder in ``folder`` that bears one of ``names`` (in lower case), the earlier name first.

    Names match in any case; two folders that differ in case alone give the first in natural order.
    """
    if not folder.is_dir():
        return None
    found: dict[str, Path] = {}
    for path in subfolders(folder):
        found.setdefault(path.name.casefold(), path)
    return next((found[name] for name in names if name in found), None)


def class_homes(base: Path, is_class: Callable[[Path], bool]) -> list[Path]:
    """Return the folders of a set's classes: ``base`` itself, or those in it, which may be doubled.

    An archive per class leaves ``bottle/bottle/test`` where a tool unpacks each into a folder of its name.
    """
    if is_class(base):
        return [base]
    homes = []
    for folder in subfolders(base):
        inside = [path for path in subfolders(folder) if path.name.casefold() == folder.name.casefold()]
        homes += [path for path in (folder, *inside) if is_class(path)][:1]
    return homes


def plain_name(name: str) -> str:
    """Return a folder's name without case and separators: ``"cvcclinicdb"`` for ``"CVC-ClinicDB"``."""
    return re.sub(r"[\W_]+", "", name.casefold())


def descend(
    place: Path, name: str, *, is_part: bool = False, listed: Callable[[Path], list[Path]] = subfolders
) -> Path | None:
    """Return the folder ``name`` below ``place``, each of its parts in any case and with any separators.

    Args:
        place: where to begin.
        name: with ``/`` between the parts.
        is_part: whether the last folder's name must say, or must not, that it holds a part of a set.
        listed: gives the folders in a folder.
    """
    parts = name.split("/")
    for number, part in enumerate(parts, start=1):
        last = is_part and number == len(parts)
        found = next((path for path in listed(place) if _bears(path.name, part, last)), None)
        if found is None:
            return None
        place = found
    return place


def _bears(name: str, wanted: str, is_part: bool) -> bool:
    stem, count = re.subn(PARTS, "", name.casefold())
    return is_part == bool(count) and plain_name(stem) == plain_name(wanted)


def child_file(folder: Path, name: str) -> Path | None:
    """Return the file in ``folder`` that is called ``name``, in any case."""
    if not folder.is_dir():
        return None
    matches = (path for path in entries(folder) if path.name.casefold() == name.casefold() and path.is_file())
    return next(matches, None)


class Masks:
    """The masks of a folder, found by an image's name.

    A mask has the image's stem, or the stem and one of :data:`MASK_ENDINGS`, or the image's whole name before
    its own suffix; its suffix may be any image's. Masks are never paired by their order: one file too many
    would shift all pairs after it.

    Args:
        folder: where the masks are; None or a missing folder holds none.
    """

    def __init__(self, folder: Path | None) -> None:
        self.files = images_in(folder) if folder is not None and folder.is_dir() else []
        self._by_stem: dict[str, Path] = {}
        for path in self.files:
            self._by_stem.setdefault(path.stem.casefold(), path)
        self._used: set[Path] = set()

    def of(self, image: Path) -> Path | None:
        """Return the mask of ``image``, if there is one."""
        names = [image.stem + ending for ending in MASK_ENDINGS] + [image.name]
        for name in names:
            mask = self._by_stem.get(name.casefold())
            if mask is not None:
                self._used.add(mask)
                return mask
        return None

    @property
    def unused(self) -> tuple[Problem, ...]:
        """A problem for each mask that no image was looked up for."""
        return unused_masks(path for path in self.files if path not in self._used)


def unused_masks(masks: Iterable[Path]) -> tuple[Problem, ...]:
    """Return what is to be said of masks whose images are not there."""
    return tuple(Problem("unused-mask", mask, "no image belongs to it") for mask in masks)


def sample_of(
    image: Path, label: int, mask: Path | None, class_name: str, base: Path, kind: str = "anomaly"
) -> Sample:
    """Return the sample of an image whose id is its path below ``base``.

    Args:
        image, label, mask, class_name: as of a :class:`Sample`.
        base: the folder that the layout was found in.
        kind: what is wrong with it, unless it is normal.
    """
    return Sample(image, label, mask, class_name, kind if label else GOOD, relative_id(image, base))


def relative_id(path: Path, base: Path) -> str:
    """Return a sample's id: its path below ``base`` with forward slashes, or its name if it lies elsewhere.

    What is not text in the name (old archives have other encodings) is spelt out, so that ids can be printed.
    """
    inside = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name
    return inside.encode("utf-8", "backslashreplace").decode("utf-8")


def tokens(name: str) -> Iterable[str]:
    """Return the words of a file name, in lower case.

    ``"Flair_subtr.nii.gz"`` gives flair, subtr, nii, gz.
    """
    return [word for word in re.split(r"[^a-z0-9]+", name.casefold()) if word]
