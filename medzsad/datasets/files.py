"""Folders as people leave them: hidden files, mixed case, natural numbering, masks under several names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from medzsad.errors import BadInput
from medzsad.scans.images2d import is_image

IGNORED = {"__macosx", "thumbs.db", "desktop.ini"}
NORMAL_FOLDERS = ("good", "ok", "normal", "healthy")
SPLITS = {
    "test": ("test", "testing"),
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
}
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
    def unused(self) -> list[Path]:
        """Masks that no image was looked up for."""
        return [path for path in self.files if path not in self._used]


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
