"""What is printed while the command line works: on stderr, and never in the way of results.

No raw control characters of file names, and no warnings of libraries beside our lines.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from medzsad.cli.options import tell

LOG = logging.getLogger("medzsad")
LOG_EVERY_S = 30.0  # between the lines of a log
CLEAR = "\r\x1b[K"

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


class StatusLine:
    """Names the present phase in one line of a terminal, which the next phase or message replaces.

    Args:
        enabled: False for ``--quiet``. Where stderr is no terminal nothing is said of phases.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled and sys.stderr.isatty()

    def __call__(self, phase: str) -> None:
        """Show ``phase``; ``""`` clears the line."""
        if self._enabled:
            sys.stderr.write(f"{CLEAR}{phase} ..." if phase else CLEAR)
            sys.stderr.flush()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self("")
        tell(text.replace("\n", " "))


class Countdown:
    """How far a run of several scans is, and how long it may still take.

    Args:
        total: how many scans there are.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._known, self._began = 0, 0.0

    def advance(self) -> None:
        """Count a scan; what is known of earlier runs is counted before the first call of :meth:`before`."""
        self._done += 1

    def before(self, text: str, behind: int = 0) -> str:
        """Return a text behind the number of the scan at hand: ``3/12, about 5 min 0 s left: reading a``.

        Args:
            text: what is done.
            behind: scans before it that are not counted yet, for they are still being written.
        """
        if self._total < 2:
            return text
        if not self._began:
            self._known, self._began = self._done, time.monotonic()
        done = self._done + behind
        new, left = done - self._known, self._total - done
        seconds = (time.monotonic() - self._began) / new * left if new else 0
        about = f", about {_duration(seconds)} left" if new else ""
        return f"{min(done + 1, self._total)}/{self._total}{about}: {text}"


def progress_of(name: str, unit: str = "it") -> Callable[..., Iterable[Any]]:
    """Return what wraps an iterable and tells how far it is: a bar on a terminal, else lines for a log.

    Args:
        name: of what is done.
        unit: of the bar.
    """

    def wrap(items: Iterable[Any], total: int) -> Iterable[Any]:
        if sys.stderr.isatty():
            from tqdm import tqdm

            return tqdm(items, total=total, desc=name, unit=unit, leave=False, file=sys.stderr)
        return logged(items, total)

    def logged(items: Iterable[Any], total: int) -> Iterator[Any]:
        with _logged(name, total) as advance:
            for item in items:
                yield item
                advance()

    return wrap


@contextmanager
def scans_bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show how far a cohort is: a bar on a terminal, else lines for a log.

    Args:
        total: how many scans there are.

    Yields:
        A function to call after each scan with the number of failures so far.
    """
    if not sys.stderr.isatty():
        with _logged("scans", total) as advance:
            yield lambda failed: advance(f", {failed} failed")
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="scan", leave=False, file=sys.stderr) as bar:

        def show(failed: int) -> None:
            bar.set_postfix(failed=failed, refresh=False)
            bar.update()

        yield show


@contextmanager
def _logged(name: str, total: int) -> Iterator[Callable[..., None]]:
    """Lend what is called after each item, with a remark; from time to time a line tells how far it is."""
    began, done, remark, over = time.monotonic(), 0, "", threading.Event()

    def advance(text: str = "") -> None:
        nonlocal done, remark
        done, remark = done + 1, text

    def report() -> None:
        # From a thread of its own: a single volume may take longer than the time between two lines.
        while not over.wait(LOG_EVERY_S):
            passed = time.monotonic() - began
            left = f", about {_duration(passed / done * (total - done))} left" if done else ""
            click.echo(f"{name}: {done} of {total}{remark} in {_duration(passed)}{left}", err=True)

    threading.Thread(target=report, daemon=True).start()
    try:
        yield advance
    finally:
        over.set()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
