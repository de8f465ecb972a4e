"""What is told of scans while they are predicted: to a terminal, to an agent, or to a log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)


class Watch:
    """What is told of scans while they are predicted in this process; of a cohort nothing is.

    Attributes:
        behind: scans that were predicted and are being written while the next is predicted.
    """

    behind = 0

    def begin(self, total: int) -> None:
        """Take how many scans there are, before the first."""

    def advance(self) -> None:
        """Take that a scan is done or failed, those of earlier runs first."""

    def phase(self, text: str) -> None:
        """Take what is done now, such as "reading NAME"."""

    def slices(self, name: str) -> Callable[..., Iterable[int]] | None:
        """Return what wraps the slice indices of a scan and gets their ``total``; None for nothing."""
        return None

    def note(self, name: str, notes: Iterable[str]) -> None:
        """Take notes on a scan."""


class Notes(Watch):
    """Logs notes: one that several scans have of the first, and at the end of how many more."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def note(self, name: str, notes: Iterable[str]) -> None:
        """Log each note that is new."""
        for note in notes:
            self._counts[note] += 1
            if self._counts[note] == 1:
                log.info("%s: %s", name, note)

    def close(self) -> None:
        """Log how many more scans a note is about."""
        for note, count in self._counts.items():
            if count > 1:
                log.info("%d more scan%s: %s", count - 1, "s" if count > 2 else "", note)
