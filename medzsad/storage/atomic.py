"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import errno
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
def replacing(
    path: Path,
    *,
    suffix: str = ".partial",
    prefix: str = PREFIX,
    folder: Path | None = None,
    durable: bool = False,
) -> Iterator[Path]:
    """Lend a temporary file, which takes the name ``path`` if all went well and vanishes if not.

    Args:
        path: the file to appear, or to be replaced; its folder is created where missing.
        suffix: of the temporary name, for writers that go by it.
        prefix: of the temporary name.
        folder: where the temporary file lies, on the same disk; by default beside ``path``.
        durable: have the disk confirm it; else a power cut could leave a whole name on half a file.

    Raises:
        OSError: if the file or its folder cannot be written; what is raised inside is passed on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder or path.parent, prefix=prefix, suffix=suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes files private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def put_folder(folder: Path, target: Path) -> None:
    """Give a finished folder its name, instead of a folder that has it; both are on one disk.

    Others may do the same at once: one of the folders is there in the end, whole.

    Raises:
        OSError: if it cannot be renamed.
    """
    folder.chmod(0o755)  # mkdtemp makes folders private
    target.parent.mkdir(parents=True, exist_ok=True)
    while not _renamed(folder, target):
        # A rename does not replace a folder that holds something.
        old = folder.with_name(f"{folder.name}-old")
        with suppress(FileNotFoundError):
            os.rename(target, old)
        shutil.rmtree(old, ignore_errors=True)


def _renamed(folder: Path, target: Path) -> bool:
    """Whether a folder could take the name, which another that holds something may have."""
    try:
        os.rename(folder, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True
