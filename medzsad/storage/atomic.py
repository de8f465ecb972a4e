"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".medzsad-"
"""How the names of files and folders begin that are still being written."""
LEFT_BEHIND_S = 24 * 3600
"""After which what a killed run was writing is taken away."""


def sweep(folder: Path, pattern: str = f"{PREFIX}*") -> None:
    """Remove what killed runs left in a folder: unfinished files and folders of ours, older than a day."""
    try:
        left = [path for path in folder.glob(pattern) if time.time() - path.lstat().st_mtime > LEFT_BEHIND_S]
    except OSError:
        return
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


@contextmanager
def replacing(path: Path, *, suffix: str = ".partial") -> Iterator[Path]:
    """Lend a temporary file beside ``path``, which takes its name if all went well and vanishes if not.

    Args:
        path: the file to appear, or to be replaced; its folder is created where missing.
        suffix: of the temporary name, for writers that go by it.

    Raises:
        OSError: if the file or its folder cannot be written; what is raised inside is passed on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PREFIX, suffix=suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
