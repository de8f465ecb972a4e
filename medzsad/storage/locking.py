"""One process at a time: a lock that the system releases itself when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from medzsad.storage.cache import make_folder, not_writable

_WAIT = 0.1  # seconds between tries
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}


@contextlib.contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for it where another process has it.

    The file stays behind, empty: deleting it would let a third process lock another file of the same name.
    On file systems without locks, as some network shares are, it holds nothing and goes on.

    Args:
        path: the lock file; created where missing.
        on_wait: called once if there is a wait.

    Raises:
        OutputNotWritable: if the file cannot be created.
    """
    make_folder(path.parent)
    try:
        file = open(path, "a+b")  # noqa: SIM115 - closed below, which releases the lock
    except OSError as error:
        raise not_writable(path, error) from error
    with file:
        said = False
        while not _try_lock(file):
            if not said and on_wait is not None:
                on_wait()
            said = True
            time.sleep(_WAIT)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        import fcntl
    except ImportError:
        return _try_lock_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


def _try_lock_windows(file: IO[bytes]) -> bool:
    msvcrt: Any = importlib.import_module("msvcrt")  # of Windows alone

    file.seek(0)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return error.errno not in _TAKEN
    return True
