"""Files kept under keys, each complete or absent, with a record and a lock: graphs, predictions, features."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from medzsad.errors import OutputNotWritable
from medzsad.storage.atomic import replacing, sweep
from medzsad.storage.cache import landing, locked

Value = TypeVar("Value")


class KeyedStore:
    """A folder with a file ``KEY.ending`` for each key, made when the first is written.

    Everything in it may be deleted at any time: what is absent or damaged is made anew.

    Args:
        folder: the store's own.
        ending: of its files, such as ``".npz"``.
        what: what is kept, in the plural, for messages.
        advice: what to do where it cannot be written. None for a folder of medzsad's cache, whose files are
            written so that a power cut leaves none half, and whose messages name MEDZSAD_CACHE.
    """

    def __init__(self, folder: Path, ending: str, *, what: str = "files", advice: str | None = None) -> None:
        self.folder = folder
        self._ending, self._what, self._advice = ending, what, advice
        self._swept = False

    def path(self, key: str) -> Path:
        """Return where the file of a key lies, or is to lie."""
        return self.folder / f"{key}{self._ending}"

    def read(self, key: str, load: Callable[[Path], Value], *damage: type[Exception]) -> Value | None:
        """Return what ``load`` makes of a key's file; None if there is none, or it is damaged.

        Args:
            key: which.
            load: reads a file.
            damage: what it raises on damaged ones, beside OSError and ValueError.
        """
        faults: tuple[type[Exception], ...] = (OSError, ValueError, *damage)
        try:
            return load(self.path(key))
        except faults:
            return None

    @contextmanager
    def writing(self, key: str, ending: str | None = None) -> Iterator[Path]:
        """Lend a temporary file that becomes the key's own, complete or not at all.

        Raises:
            OutputNotWritable: if the disk is full or the folder cannot be written.
        """
        path = self.path(key) if ending is None else self.path(key).with_suffix(ending)
        if self._advice is None:
            with landing(path) as temporary:
                yield temporary
            return
        try:
            if not self._swept:  # of what killed runs left half written
                sweep(self.folder)
                self._swept = True
            with replacing(path) as temporary:
                yield temporary
        except OSError as error:
            raise OutputNotWritable(
                f"{self.folder}: {self._what} cannot be kept there ({error.strerror or error}); "
                f"{self._advice}"
            ) from error

    def record(self, key: str) -> dict[str, Any]:
        """Return what was noted of a key's file; nothing unless the file is as large as it was."""
        try:
            facts = json.loads(self.path(key).with_suffix(".json").read_text())
            whole = isinstance(facts, dict) and facts.pop("bytes") == self.path(key).stat().st_size
        except (OSError, ValueError, KeyError, RecursionError):
            return {}
        return facts if whole else {}

    def note(self, key: str, facts: dict[str, Any]) -> None:
        """Note facts of a key's file, JSON-serialisable.

        Raises:
            OutputNotWritable: if they cannot be written.
        """
        with self.writing(key, ".json") as temporary:
            temporary.write_text(json.dumps({"bytes": self.path(key).stat().st_size, **facts}))

    def locked(self, key: str, on_wait: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Hold a key, so that no two processes make its file; see :func:`~medzsad.storage.cache.locked`."""
        return locked(self.path(key).with_suffix(".lock"), on_wait=on_wait)

    def size(self) -> int:
        """Return the bytes that all files take."""
        return sum(path.stat().st_size for path in self.folder.glob(f"*{self._ending}"))
