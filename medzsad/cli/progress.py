"""What the command line says while it works: on stderr, and never in the way of results."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from medzsad.cli.options import tell

LOG_EVERY_S = 30.0  # between the lines of a log
CLEAR = "\r\x1b[K"


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
        return _logged(items, total, name)

    return wrap


def _logged(items: Iterable[Any], total: int, name: str) -> Iterator[Any]:
    began, done, over = time.monotonic(), 0, threading.Event()

    def tell() -> None:
        # From a thread of its own: a single volume may take longer than the time between two lines.
        while not over.wait(LOG_EVERY_S):
            passed = time.monotonic() - began
            left = f", about {_duration(passed / done * (total - done))} left" if done else ""
            click.echo(f"{name}: {done} of {total} in {_duration(passed)}{left}", err=True)

    threading.Thread(target=tell, daemon=True).start()
    try:
        for item in items:
            yield item
            done += 1
    finally:
        over.set()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
