"""What lies in a folder and below, for every format: its files, and those that are there by name alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from medzsad.errors import BadInput


def walk(folder: Path) -> Iterator[tuple[Path, list[Path], dict[Path, str]]]:
    """Yield each folder from ``folder`` down, with its files by name, and what cannot be read in it and why.

    Hidden names, devices and pipes are skipped. Links to folders are followed, but no folder is visited
    twice: not one that contains itself by a link, nor one that two links lead to.

    Raises:
        BadInput: ``folder`` may not be opened.
    """
    visited: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            status = parent.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            entries = sorted(path for path in parent.iterdir() if not path.name.startswith("."))
        except OSError as error:
            raise BadInput(f"{parent} cannot be opened ({error.strerror}); check its permissions.") from error
        faults = {path: fault for path in entries if (fault := why_unreadable(path))}
        yield parent, [path for path in entries if path not in faults and path.is_file()], faults
        folders = [path for path in entries if path not in faults and path.is_dir()]
        # Links come last, so that what they lead to keeps its own name where it lies here, too.
        waiting += sorted(folders, key=lambda path: (path.is_symlink(), path), reverse=True)


def why_unreadable(path: Path) -> str | None:
    """Return what is wrong with a file or folder before its content is looked at, in words; else None."""
    try:
        status = path.stat()
    except OSError:  # a link in a circle, too
        return "a link that leads nowhere" if path.is_symlink() else "a file that cannot be opened"
    if stat.S_ISDIR(status.st_mode):
        return None if os.access(path, os.R_OK | os.X_OK) else "a folder that may not be opened"
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size == 0:
        return "an empty file"
    return None if os.access(path, os.R_OK) else "a file that may not be read"
