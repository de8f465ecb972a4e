"""Warnings of libraries become notes."""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from medzsad.scans.library_warnings import heard


def test_each_message_is_one_note(capfd: pytest.CaptureFixture[str]) -> None:
    with heard("some.library") as notes:
        for _ in range(2):
            warnings.warn("Two\nlines.", UserWarning, stacklevel=1)
        warnings.warn("of no use to a reader", DeprecationWarning, stacklevel=1)
        logging.getLogger("some.library").warning("%d dims", 0)
    assert notes == ["Its reader warns: Two lines.", "Its reader warns: 0 dims."]
    assert capfd.readouterr().err == ""


def test_threads_hear_their_own(capfd: pytest.CaptureFixture[str]) -> None:
    logger, show, filters = logging.getLogger("some.library"), warnings.showwarning, list(warnings.filters)

    def read(number: int) -> list[str]:
        with heard("some.library") as notes:
            for _ in range(20):
                warnings.warn(f"file {number}", UserWarning, stacklevel=1)
                logger.warning("header %d", number)
        return notes

    with ThreadPoolExecutor(8) as pool:
        for number, notes in enumerate(pool.map(read, range(64))):
            assert notes == [f"Its reader warns: file {number}.", f"Its reader warns: header {number}."]
    assert capfd.readouterr().err == ""
    assert (warnings.showwarning, warnings.filters) == (show, filters)
    assert logger.filters == []


def test_a_failure_restores_all() -> None:
    show = warnings.showwarning
    with pytest.raises(ZeroDivisionError), heard():
        _ = 1 / 0
    assert warnings.showwarning is show
