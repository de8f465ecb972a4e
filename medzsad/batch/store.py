"""Where the results of a run lie: a folder, or anything that fsspec can write to.

A scan's results are complete or absent: in a folder they take their name at once. In an object store, and
where all scans' results lie in one folder, the outcome, without which nothing counts, is written last.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from medzsad.errors import BadInput, OutputNotWritable
from medzsad.results.writing import prepare_folder
from medzsad.scans.own_results import mark_of
from medzsad.storage.atomic import put_folder, replacing, sweep
from medzsad.storage.hashing import hash_of

OUTCOME = "outcome.json"
SETTINGS = "cohort.json"  # of all results of a store, at its root
THUMBNAIL = "thumbnail.png"
READERS = 16  # threads that look for what is there
FLAT = "."  # where results lie that share one folder
RECORDS = ".medzsad"  # in that folder, what a further run has to know of each scan


def place_of(scan: str) -> str:
    """Where a scan's results lie; 256 folders keep each small."""
    return f"scans/{hash_of(scan) >> 56:02x}/{scan}"


class ResultStore(Protocol):
    """A tree of files; paths are relative to its root, with ``/``.

    Attributes:
        url: of the root, for messages.
        is_flat: whether the results of all scans share one folder.

    Raises:
        OutputNotWritable: from everything, if it cannot be read or written.
    """

    url: str
    is_flat: bool

    def prepare(self) -> None:
        """Make sure that it can be written to, and take away what killed workers left half written."""

    def top(self, path: str) -> str:
        """Return the path of what users open, given relative to the tables, to read or write it."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None if there is none."""

    def write(self, path: str, content: bytes) -> None:
        """Write a file, complete or not at all."""

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted."""

    def staging(self) -> contextlib.AbstractContextManager[Path]:
        """Return a temporary folder on this machine to prepare a scan's results in."""

    def commit(self, scan: str, files: Path, outcome: bytes) -> None:
        """Give a scan its results, the files of a folder and their outcome, instead of those it has."""


def open_store(url: str | os.PathLike[str], *, flat: bool = False) -> ResultStore:
    """Return the store at a path or an fsspec URL, such as ``s3://bucket/cohort``.

    Args:
        url: the place.
        flat: the results of all scans share that folder.

    Raises:
        BadInput: if there is no such kind of URL, or its package is not installed.
    """
    text = os.fspath(url)
    if flat:
        return FlatStore(Path(text))
    if text.lower().startswith("file://"):
        text = unquote(text[len("file://") :])
    if "://" not in text:
        return FolderStore(Path(os.path.abspath(text)))
    return ObjectStore(text.rstrip("/"))


class FolderStore:
    """Results in a folder of this machine, or of one that all machines share."""

    is_flat = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def prepare(self) -> None:
        prepare_folder(self.root)
        # Other workers may be at work here: what is young is theirs.
        sweep(self.root / "scans")

    def top(self, path: str) -> str:
        return path

    def read(self, path: str) -> bytes | None:
        with self._explained():
            place = self.root / path
            if os.path.lexists(place) and not place.is_file():  # a pipe would be waited for without end
                raise OSError(errno.EINVAL, f"{path} is no file")
            try:
                return place.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, path: str, content: bytes) -> None:
        with self._explained(), replacing(self.root / path) as temporary:
            temporary.write_bytes(content)

    def remove(self, path: str) -> None:
        with self._explained():
            (self.root / path).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        place = self.root / folder
        return sorted(p.name for p in place.iterdir() if not p.name.startswith(".")) if place.is_dir() else []

    @contextmanager
    def staging(self) -> Iterator[Path]:
        # On the file system of the results, so that a rename moves them.
        with self._explained():
            (self.root / "scans").mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self.root / "scans", prefix=".medzsad-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, scan: str, files: Path, outcome: bytes) -> None:
        with self._explained():
            (files / OUTCOME).write_bytes(outcome)
            put_folder(files, self.root / place_of(scan))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputNotWritable(
                f"{self.root}: the results cannot be written or read ({error.strerror or error}); make room "
                "or choose another folder"
            ) from error


class FlatStore(FolderStore):
    """Results that share one folder, and what is known of each scan in a hidden folder beside them."""

    is_flat = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / RECORDS)
        self.folder = folder
        self.url = str(folder)
        self._created: Path | None = None

    def prepare(self) -> None:
        self._created = prepare_folder(self.folder)
        sweep(self.root / "scans")

    def top(self, path: str) -> str:
        return str(self.folder.absolute() / path)

    def commit(self, scan: str, files: Path, outcome: bytes) -> None:
        # File by file, the outcome last: another run in the same folder may read the one that is there.
        place = self.root / place_of(scan)
        with self._explained():
            place.mkdir(parents=True, exist_ok=True)
            for file in files.iterdir():
                os.replace(file, place / file.name)
        self.write(f"{place_of(scan)}/{OUTCOME}", outcome)

    def holds(self, files: object) -> bool:
        """Return whether the files of a scan (names by kind) are there, each as medzsad wrote it."""
        names = list(files.values()) if isinstance(files, dict) else [None]
        return all(
            isinstance(name, str) and Path(name).name == name and mark_of(self.folder / name) is not None
            for name in names
        )

    def discard(self) -> None:
        """Remove the folder and its parents as far as this run made them and nothing lies in them."""
        if self._created is None:
            return
        records = sorted((path for path in self.root.rglob("*") if path.is_dir()), reverse=True)
        for path in (*records, self.root, self.folder, *self.folder.parents):
            try:
                path.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return
            if path == self._created:
                return


class ObjectStore:
    """Results behind an fsspec URL. An object appears whole; several do not, so the outcome comes last."""

    is_flat = False

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise BadInput(f'{url} needs fsspec; pip install "medzsad[cohort]".') from error
        try:
            self._fs, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise BadInput(f"{url}: results cannot be written there ({_line(error)}).") from error
        self.url = url

    def prepare(self) -> None:
        self.write(".medzsad-probe", b"")
        self.remove(".medzsad-probe")

    def top(self, path: str) -> str:
        return path

    def read(self, path: str) -> bytes | None:
        with self._explained():
            try:
                return self._fs.cat_file(self._at(path))
            except FileNotFoundError:
                return None

    def write(self, path: str, content: bytes) -> None:
        with self._explained():
            self._fs.makedirs(self._at(path).rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(self._at(path), content)

    def remove(self, path: str) -> None:
        with self._explained(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(path))

    def names(self, folder: str) -> list[str]:
        with self._explained():
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted(str(entry).rstrip("/").rpartition("/")[2] for entry in entries)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="medzsad-") as folder:
            yield Path(folder)

    def commit(self, scan: str, files: Path, outcome: bytes) -> None:
        target = place_of(scan)
        self.remove(f"{target}/{OUTCOME}")
        known: set[Path] = set()
        for file in sorted(path for path in files.rglob("*") if path.is_file()):
            place = self._at(f"{target}/{file.relative_to(files).as_posix()}")
            with self._explained():
                if file.parent not in known:
                    self._fs.makedirs(place.rpartition("/")[0], exist_ok=True)
                    known.add(file.parent)
                self._fs.put_file(str(file), place)
        self.write(f"{target}/{OUTCOME}", outcome)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every kind of store has errors of its own
            raise OutputNotWritable(
                f"{self.url}: the results cannot be written or read ({_line(error)}); check the URL and the "
                "rights"
            ) from error


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
