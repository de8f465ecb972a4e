"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, suffix: str = ".partial") -> Iterator[Path]:
    """A temporary file beside ``path`` to write, which takes its name if all went well and vanishes if not.

    Args:
        path: the file to appear, or to be replaced; its folder is created where missing.
        suffix: of the temporary name, for writers that go by it.

    Raises:
        OSError: if the file or its folder cannot be written; what is raised inside is passed on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".medzsad-", suffix=suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
