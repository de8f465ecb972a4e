"""What is printed: no raw control characters of file names, no warnings of libraries beside our lines."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from medzsad.cli.options import tell

LOG = logging.getLogger("medzsad")

# Control characters, less those of lines and progress bars; what terminals obey in a file name is spelt out.
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ESCAPE = re.compile(r"\x1b(?!\[(?:\?25[lh]|[0-9]{0,2}[AKm]))")
_CHATTY = ("nibabel.global", "pydicom", "PIL", "tifffile", "monai", "matplotlib")


def printable(text: str) -> str:
    """Return a text with control characters spelt out as ``\\x1b``; colours and cursor moves of ours pass."""
    text = _ESCAPE.sub(r"\\x1b", text)
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


class Guarded:
    """A text stream that prints :func:`printable` text; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``, and return how many characters it has."""
        self._stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard() -> None:
    """Guard this process's output: for the command line, where nobody else uses the streams."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            continue
        if hasattr(stream, "reconfigure"):  # surrogates of file names that are no text
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, Guarded(stream))
    if not sys.warnoptions and not os.environ.get("MEDZSAD_DEBUG"):
        warnings.simplefilter("ignore")
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def show_log(say: Callable[[str], None] | None = tell) -> None:
    """Print what the library logs, until the command ends (``cli.main.run`` calls ``show_log(None)``).

    Records of the ``medzsad`` logger at level INFO and above are meant; without this call none is printed.

    Args:
        say: prints one message; by default on stderr, with settings as options. None prints no more.
    """
    for handler in [handler for handler in LOG.handlers if isinstance(handler, _Said)]:
        LOG.removeHandler(handler)
    if say is not None:
        LOG.addHandler(_Said(say))
    LOG.setLevel(logging.NOTSET if say is None else logging.INFO)
    LOG.propagate = say is None  # a library that sets up a root logger would have all printed twice


class _Said(logging.Handler):
    """Hands the text of each record to ``say``."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())
