"""What can go wrong, as the few kinds a caller may want to tell apart.

A message is one line: what is wrong, with which file, and what to do about it; only what must be done by hand
to get a model without a network is numbered, a step a line. It names a setting as an argument in backticks
(`batch_size`), which the command line prints as its option (:func:`medzsad.cli.options.in_options`). It exits
with :attr:`MedzsadError.exit_code`, without a traceback.
"""

from __future__ import annotations

import os
from typing import TypeVar

Value = TypeVar("Value")


class MedzsadError(Exception):
    """Base of every error that is the input's, the settings' or the surroundings' fault, never a bug."""

    exit_code = 2

    def __init__(self, *args: object) -> None:
        super().__init__(*(_spelt(arg) if isinstance(arg, str) else arg for arg in args))


def _spelt(text: str) -> str:
    """Return a message whose names of files command no terminal: a cursor move could hide the line above."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in text
    )


class BadInput(MedzsadError):  # noqa: N818 - reads as what it is where it is raised
    """A scan, image, folder or option that cannot be used as given."""


class ModelNotReady(MedzsadError):  # noqa: N818
    """A detector that cannot be built: unknown name, missing weights, or a checkpoint that cannot be read."""


class OutputNotWritable(MedzsadError):  # noqa: N818
    """A place that results cannot be written to."""


def certain(value: Value | None) -> Value:
    """Return ``value``, which is not None here, for a reason that types do not tell.

    Raises:
        TypeError: if it is None: a fault of this package.
    """
    if value is None:
        raise TypeError("a value that must be known here is None")
    return value


def explained(error: Exception, subject: object = None) -> Exception:
    """Return BadInput for an error of memory, disk or file names, which is no bug; others as they are.

    Args:
        error: what was raised.
        subject: the file it is about, for errors that do not say.
    """
    if isinstance(error, MedzsadError):
        return error
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        where = f"{subject}: " if subject is not None else ""
        return BadInput(f"{where}not enough memory is free; use fewer or smaller images at once.")
    if isinstance(error, OSError):
        return BadInput(f"{os.fspath(error.filename)}: {error.strerror}" if error.filename else text)
    if isinstance(error, RuntimeError) and "home directory" in text:
        return BadInput("a path begins with ~, but there is no such home folder; give the whole path.")
    if isinstance(error, ValueError) and "null byte" in text:
        return BadInput("a file name holds a NUL character; no file can have such a name.")
    if isinstance(error, ValueError) and "integer string conversion" in text:
        return BadInput("a number has thousands of digits; give a shorter one.")
    return error


class GeometryWarning(UserWarning):
    """Something about a scan's geometry or intensities was repaired or assumed, and the user should know."""
