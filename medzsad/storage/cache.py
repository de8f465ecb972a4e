"""The cache folder: where each weight file lies, whether it is whole, and locks. No torch here.

``weights/NAME.safetensors`` is a file ready for use; it appears there complete or not at all.
``incoming/`` is where a user may put files by hand, ``downloads/`` holds what is still on its way, and
``catalogue.yaml`` names the models that ``medzsad models import`` added.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medzsad.errors import ModelNotReady, OutputNotWritable
from medzsad.storage.atomic import replacing, sweep

METADATA_KEY = "medzsad_weights"
# Of file systems without locks, as some network shares are.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_OUT_OF_SPACE = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_LONGEST_HEADER = 100 << 20  # bytes; safetensors' own limit


def cache_folder() -> Path:
    """Return the cache.

    ``MEDZSAD_CACHE`` if set, else the platform's place for caches. It may not exist yet.
    """
    chosen = os.environ.get("MEDZSAD_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("medzsad", appauthor=False))


def slot(name: str) -> Path:
    """Where the weight file ``name`` of the catalogue lies once it is ready."""
    return cache_folder() / "weights" / f"{name}.safetensors"


def incoming_folder() -> Path:
    """Where original files may be put by hand."""
    return cache_folder() / "incoming"


def partial(name: str) -> Path:
    """Where the original of ``name`` is downloaded to."""
    return cache_folder() / "downloads" / f"{name}.partial"


def own_catalogue() -> Path:
    """Return the catalogue of imported models."""
    return cache_folder() / "catalogue.yaml"


def is_ready(name: str) -> bool:
    """Whether the slot of ``name`` holds a whole file; reads its header only."""
    return read_facts(name) is not None


def read_facts(name: str) -> dict[str, Any] | None:
    """Return what was recorded when ``name`` was stored (source hash, date, ...).

    None unless the file is whole.
    """
    path = slot(name)
    try:
        metadata, size = read_header(path)
        if size != path.stat().st_size:
            return None
        facts = json.loads(metadata.get(METADATA_KEY, "{}"))
    except (OSError, ValueError, ModelNotReady):
        return None
    return facts if isinstance(facts, dict) else None


def read_header(path: Path) -> tuple[dict[str, str], int]:
    """Return the metadata of a safetensors file, and the size in bytes that its header promises.

    Raises:
        ModelNotReady: if the file is not one.
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        raw = file.read(length) if 2 <= length <= _LONGEST_HEADER else b""
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", None) or {}
        ends = [int(entry["data_offsets"][1]) for entry in header.values()]
        if not all(isinstance(value, str) for value in metadata.values()):
            raise TypeError("metadata that are no texts")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise ModelNotReady(f"{path}: not a safetensors file, perhaps damaged") from error
    return metadata, 8 + length + max(ends, default=0)


def size_of(name: str) -> int:
    """Bytes that ``name`` takes up, what was downloaded so far included; 0 if there is nothing."""
    return sum(path.stat().st_size for path in _pieces(name) if path.is_file())


def _pieces(name: str) -> list[Path]:
    """All files of ``name``, what a killed process left behind included; ``=`` is in no name."""
    return [slot(name), partial(name), *(cache_folder() / "downloads").glob(f"{name}=*.writing")]


def total_size() -> int:
    """Bytes that the whole cache takes up."""
    folder = cache_folder()
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def remove(name: str) -> int:
    """Delete what there is of ``name``.

    Returns:
        The bytes freed.

    Raises:
        OutputNotWritable: if a file cannot be deleted.
    """
    freed = size_of(name)
    for path in _pieces(name):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputNotWritable(f"{path}: cannot be deleted ({error.strerror or error})") from error
    return freed


def free_space(path: Path) -> int:
    """Free bytes where ``path`` is, or would be."""
    existing = next(p for p in (path, *path.parents) if p.exists())
    return shutil.disk_usage(existing).free


def require_space(path: Path, needed: int, what: str) -> None:
    """Raise OutputNotWritable unless ``needed`` bytes are free where ``path`` is to be."""
    free = free_space(path)
    if free < needed:
        raise OutputNotWritable(
            f"{path.parent}: too little space for {what}: {in_megabytes(needed)} needed, "
            f"{in_megabytes(free)} free; make room, or set MEDZSAD_CACHE to a folder elsewhere"
        )


def make_folder(path: Path) -> None:
    """Create the folder ``path``.

    Raises:
        OutputNotWritable: if that fails.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(path, error) from error


@contextlib.contextmanager
def landing(path: Path) -> Iterator[Path]:
    """Return a temporary file to write, which takes the name ``path`` if all went well and vanishes if not.

    It lies beside the folder of ``path`` on the same disk, so that nothing half-written is ever in there.

    Raises:
        OutputNotWritable: if it cannot be created, written or renamed.
    """
    folder = cache_folder() / "downloads"
    make_folder(folder)
    sweep(folder, "*.writing")
    try:
        options = {"prefix": f"{path.stem}=", "suffix": ".writing"}
        with replacing(path, **options, folder=folder, durable=True) as temporary:
            yield temporary
    except OSError as error:
        raise not_writable(path, error) from error


@contextlib.contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for it where another process has it.

    The system releases it when its holder dies. On file systems without locks it holds nothing and goes on.

    Args:
        path: the lock file; created where missing.
        on_wait: called once if there is a wait.

    Raises:
        OutputNotWritable: if the file cannot be created.
    """
    from filelock import FileLock, Timeout

    make_folder(path.parent)
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if on_wait is not None:
                on_wait()
            lock.acquire()
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise not_writable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def not_writable(path: Path, error: OSError) -> OutputNotWritable:
    """Return the error to raise when writing ``path`` failed."""
    if error.errno in _OUT_OF_SPACE:
        return OutputNotWritable(
            f"{path}: no space left; make room, or set MEDZSAD_CACHE to a folder on another disk, "
            "and run the same command again"
        )
    return OutputNotWritable(
        f"{path}: cannot be written ({error.strerror or error}); set MEDZSAD_CACHE to a folder that can"
    )


def in_megabytes(size: int) -> str:
    """Bytes, for people: ``934 MB``."""
    if size >= 9_950_000_000:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 9_950_000 else f"{max(0.1, size / 1e6):.1f} MB"
