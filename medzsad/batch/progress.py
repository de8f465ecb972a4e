"""How far a cohort is: a bar on a terminal, and a line from time to time in the log of a batch system."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_S = 60.0


@contextmanager
def progress_of(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Return a function to call after each scan with the number of failures so far.

    Args:
        total: how many scans there are.
        shown: False shows nothing.
    """
    if not shown:
        yield lambda failed: None
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, unit="scan", leave=False, file=sys.stderr) as bar:

            def advance(failed: int) -> None:
                bar.set_postfix(failed=failed, refresh=False)
                bar.update()

            yield advance
    else:
        yield _Lines(total)


class _Lines:
    """Says every :data:`LINE_S` how many scans are done and how long the others take."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = self._count_then = 0
        self._said = time.monotonic()

    def __call__(self, failed: int) -> None:
        self._count += 1
        now = time.monotonic()
        if now - self._said < LINE_S:
            return
        rate = (self._count - self._count_then) / (now - self._said)
        left = (self._total - self._count) / rate / 60
        print(
            f"{self._count} of {self._total} scans, {failed} failed, {rate:.2g} scans/s, {left:.0f} min left",
            file=sys.stderr,
            flush=True,
        )
        self._said, self._count_then = now, self._count
