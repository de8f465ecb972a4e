"""Which files an agent may have read and written: links are followed before that is decided."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from medzsad.errors import BadInput, OutputNotWritable
from medzsad.results.writing import prepare_folder
from medzsad.scans.files import is_volume
from medzsad.scans.images2d import is_image
from medzsad.scans.itk_headers import holds_own_voxels, is_meta
from medzsad.scans.itk_volumes import is_itk

PAIRS = (".hdr", ".img", ".hdr.gz", ".img.gz")
HEADER = 1 << 20  # bytes in which a text header must end


class Folders:
    """The folder that an agent works in, and those that it may read besides.

    Attributes:
        root: where results are written, and what relative paths begin at; links resolved.
        readable: what may be read: ``root`` and the others.

    Args:
        folder: is created where missing.
        allow: further folders to read from.

    Raises:
        BadInput: if a folder to read from is none.
        OutputNotWritable: if ``folder`` cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str], allow: Iterable[str | os.PathLike[str]] = ()) -> None:
        root = Path(folder).expanduser()
        prepare_folder(root)
        self.root = root.resolve()
        others = [Path(path).expanduser() for path in allow]
        for path in others:
            if not path.is_dir():
                raise BadInput(f"{path}: no such folder; `allow` names folders to read scans from")
        self.readable = (self.root, *(path.resolve() for path in others))

    def input(self, text: str) -> Path:
        """Return a file or folder that may be read, with all that reading it opens.

        Raises:
            BadInput: if it is not there, or it or a link below it leads out of the folders.
        """
        path = self._resolved(text)
        if not path.exists():
            raise BadInput(f"{text}: no such file or folder in the folders of this server")
        for opened in _opened_with(path):
            if not self._holds(opened.resolve()):
                raise BadInput(
                    f"{text} leads to files outside the folders of this server; copy them into one"
                )
            if _is_detached(opened):
                raise BadInput(
                    f"{self.name(opened)} keeps its voxels in another file, or is damaged; export one file"
                )
        return path

    def output(self, text: str) -> Path:
        """Return a folder below :attr:`root` to write results to.

        Raises:
            OutputNotWritable: if it, or a link in it, leads elsewhere.
        """
        path = _absolute(self.root, text)
        for place in (path, path / ".medzsad"):
            if not place.resolve().is_relative_to(self.root):
                raise OutputNotWritable(
                    f"{text}: results are written below {self.root} alone; name a folder in it"
                )
        return path.resolve()

    def name(self, path: Path) -> str:
        """Return what an agent calls a path: relative to :attr:`root` where it lies in it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _resolved(self, text: str) -> Path:
        path = _absolute(self.root, text).resolve()
        if not self._holds(path):
            listed = ", ".join(map(str, self.readable))
            raise BadInput(f"{text} is outside the folders of this server ({listed})")
        return path

    def _holds(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self.readable)


def _absolute(root: Path, text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise BadInput("a path is empty, or holds a NUL character")
    return root / text


def _opened_with(path: Path) -> Iterator[Path]:
    """Yield a path and the files that reading it as a scan may open, for links may lead anywhere."""
    yield path
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder, name) for name in (*folders, *files))
    elif path.name.lower().endswith(PAIRS) or not (is_volume(path) or is_image(path)):
        yield from path.parent.iterdir()  # the other half of a pair, the other files of a series


def _is_detached(path: Path) -> bool:
    """Return whether a header names another file for its voxels, which could be any file of this machine."""
    if not is_itk(path) or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEADER)
    if is_meta(path):
        return holds_own_voxels(head) is not True
    end = re.search(rb"\r?\n\r?\n", head)
    return end is None or re.search(rb"(?im)^\s*data ?file\s*:", head[: end.start()]) is not None
