"""What a file may claim before anything of it is decoded: sizes with defaults, each raised by a variable.

A few kilobytes can claim gigabytes. Whoever reads a file calls these with what its header says.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path

from medzsad.errors import BadInput, MedzsadError

DEFAULTS = {
    "MEDZSAD_MAX_PIXELS": (100_000_000, "pixels of one image or slice, or of a batch as a network sees it"),
    "MEDZSAD_MAX_VOXELS": (1_000_000_000, "voxels of one volume"),
    "MEDZSAD_MAX_SLICES": (20_000, "slices or frames of one scan"),
    "MEDZSAD_MIN_SIDE": (4, "pixels on a side of a slice, where there are 100 slices or more"),
    "MEDZSAD_MAX_WORKERS": (256, "processes, threads or models at once"),
    "MEDZSAD_MAX_RESAMPLES": (1_000_000, "draws of a bootstrap"),
    "MEDZSAD_MAX_TEXT_MB": (256, "megabytes of a table, list, catalogue or recipe"),
}
"""Variable to (default, what it limits). docs/limits.md shows them."""

SMALLEST_SIDE = 16
"""Pixels on a side of the images that any network gets; for batches of a network not known yet."""
_PACKED = 500_000_000  # bytes: what unpacks to less is let through
_RATIO = 250  # of unpacked to packed bytes; scans reach about 50


def limit(variable: str) -> int:
    """Return the limit that an environment variable of :data:`DEFAULTS` sets, or its default.

    Raises:
        BadInput: if the variable holds no positive number.
    """
    text = os.environ.get(variable)
    if not text:
        return DEFAULTS[variable][0]
    try:
        value = float(text)
        if not (math.isfinite(value) and value >= 1):
            raise ValueError(text)
    except ValueError as error:
        raise BadInput(f"{variable}={text}: give a number of at least 1, or unset it.") from error
    return int(value)


def check_limit(
    value: float, variable: str, subject: object, unit: str = "", kind: type[MedzsadError] = BadInput
) -> None:
    """Raise ``kind`` if ``value`` is above the limit; the message says how to raise that.

    Args:
        value: what is claimed or asked for.
        variable: a key of :data:`DEFAULTS`.
        subject: the file or option, for the message.
        unit: what is counted.
        kind: of error.
    """
    if not value <= limit(variable):
        raise kind(
            f"{subject} claims {_short(value)} {unit}, more than the limit of "
            f"{_short(limit(variable))}; if that is right, raise the limit with the "
            f"environment variable {variable}."
        )


def check_volume(
    path: object, width: float, height: float, slices: float = 1, *, packed: bool = False
) -> None:
    """Raise BadInput if a scan claims more than may be decoded, or than there is memory for.

    Args:
        path: the file.
        width, height, slices: as its header says, colours not counted.
        packed: whether the file is compressed: see :func:`check_packed`.
    """
    pixels = float(width) * float(height)
    check_limit(pixels, "MEDZSAD_MAX_PIXELS", path, "pixels a slice")
    check_limit(float(slices), "MEDZSAD_MAX_SLICES", path, "slices")
    check_limit(pixels * slices, "MEDZSAD_MAX_VOXELS", path, "voxels")
    if packed:
        check_packed(path, pixels * slices)
    free = available_memory()
    needed = 8 * pixels * slices  # as stored and as float32, at the least
    if free is not None and needed > free:
        raise BadInput(
            f"{path} claims {_short(pixels * slices)} voxels, which need {needed / 1e9:.1f} GB of memory, "
            f"and {free / 1e9:.1f} GB are free; cut it into parts, or use a machine with more."
        )


def check_packed(path: object, unpacked: float) -> None:
    """Raise BadInput if a file of few megabytes would unpack to gigabytes: no scan shrinks like that.

    Setting ``MEDZSAD_MAX_VOXELS`` switches this off.
    """
    if os.environ.get("MEDZSAD_MAX_VOXELS") or unpacked <= _PACKED:
        return
    try:
        size = os.stat(str(path)).st_size
    except (OSError, ValueError):
        return
    if unpacked > _RATIO * size:
        raise BadInput(
            f"{path} has {size / 1e6:.1f} MB and would unpack to {unpacked / 1e9:.1f} GB, which no scan "
            "does; if it is one, set the environment variable MEDZSAD_MAX_VOXELS to its number of voxels."
        )


def check_batch(size: int, batch: int, subject: str, kind: type[MedzsadError] = BadInput) -> None:
    """Raise ``kind`` if a batch of images is more than a network may get.

    Args:
        size: pixels on a side; :data:`SMALLEST_SIDE` while the network is not known.
        batch: images at once.
        subject: the option, for the message.
        kind: of error.
    """
    check_limit(
        float(size) * float(size) * max(1, batch), "MEDZSAD_MAX_PIXELS", subject, "pixels a batch", kind
    )


def require_file(path: str | os.PathLike[str], kind: type[MedzsadError] = BadInput) -> Path:
    """Return the path of a regular file; a pipe, socket or device would be waited for without end.

    Raises:
        BadInput, or ``kind``: if there is none, or it is something else.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a NUL in the name
        raise kind(f"{os.fspath(path)!r} is no name that a file can have.") from error
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "no such file; check the path" if missing else f"cannot be read ({error.strerror or error})"
        raise kind(f"{path}: {reason}") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise kind(f"{path}: {what}, not a file; give a file.")
    return Path(path)


def exists(path: Path) -> bool:
    """Return whether there is something of that name; False for names that nothing can have."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def available_memory() -> int | None:
    """Return the bytes that this process may still take, by system, control group and its own limit; None
    where that is not known."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        for folder in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory"):
            for most, used in (
                ("memory.max", "memory.current"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            ):
                text = Path(folder, most)
                if text.is_file() and text.read_text().strip().isdigit():
                    found.append(int(text.read_text()) - int(Path(folder, used).read_text()))
    except (OSError, ValueError, IndexError):
        pass
    return max(0, min(found)) if found else None


def _short(value: float) -> str:
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:.0f}"
