"""A folder that only this user can read, gone when the server is, also one that was killed."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from medzsad.errors import OutputNotWritable

_LOCK = ".lock"


class PrivateFolder:
    """A new folder, which lives as long as this process, or until :meth:`close`.

    All such folders of a user lie in one (mode 0700), each with a lock that the system releases when its
    process dies, however it dies. Whoever makes a new one removes those whose lock is free.

    Attributes:
        path: of the folder.

    Args:
        base: where they lie; by default the system's temporary folder.

    Raises:
        OutputNotWritable: if it cannot be made, or the place belongs to somebody else.
    """

    def __init__(self, base: Path | None = None) -> None:
        home = (base or Path(tempfile.gettempdir())) / f"medzsad-serve-{_user()}"
        try:
            home.mkdir(mode=0o700, exist_ok=True)
            _require_own(home)
            with FileLock(home / "start.lock"):  # nobody takes a new folder for one that was left
                _sweep(home)
                self.path = Path(tempfile.mkdtemp(dir=home, prefix="run-")).resolve()
                self._lock = FileLock(self.path / _LOCK)
                self._lock.acquire(timeout=0)
        except OSError as error:
            raise OutputNotWritable(
                f"{home}: no private folder can be made there ({error.strerror or error}); set TMPDIR to "
                "another place"
            ) from error

    def folder(self, name: str) -> Path:
        """Return a new folder in it.

        Raises:
            OSError: if it cannot be made.
        """
        path = self.path / name
        path.mkdir(mode=0o700)
        return path

    def close(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release(force=True)
        shutil.rmtree(self.path, ignore_errors=True)


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"


def _require_own(folder: Path) -> None:
    """Raise OutputNotWritable if others could have put the folder there, or read it."""
    found = folder.lstat()
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    if not stat.S_ISDIR(found.st_mode) or not own:
        raise OutputNotWritable(f"{folder} is somebody else's; remove it, or set TMPDIR to another place")
    folder.chmod(0o700)


def _sweep(home: Path) -> None:
    """Remove the folders of servers that were killed."""
    for left in home.glob("run-*"):
        lock = FileLock(left / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue  # its server runs
        except OSError:
            pass
        shutil.rmtree(left, ignore_errors=True)
        lock.release(force=True)
        shutil.rmtree(left, ignore_errors=True)
