"""Warnings of libraries become notes."""

from __future__ import annotations

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from medzsad.scans.library_warnings import heard, hushed


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


def test_a_thread_that_is_done_lets_no_warning_of_another_out(capfd: pytest.CaptureFixture[str]) -> None:
    logger, show = logging.getLogger("some.library"), warnings.showwarning
    level, barrier = logger.level, threading.Barrier(2, timeout=20)

    def first() -> None:
        with hushed("some.library"):
            barrier.wait()  # both are inside
        barrier.wait()  # this one is out

    def second() -> None:
        with hushed("some.library"):
            barrier.wait()
            barrier.wait()
            warnings.warn("Doe^Jane", UserWarning, stacklevel=1)
            logging.getLogger("some.library.part").error("Doe^Jane")

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(first), pool.submit(second)]:
            future.result()
    assert capfd.readouterr().err == ""
    assert (warnings.showwarning, logger.level) == (show, level)


def test_what_is_hushed_inside_is_not_heard_outside() -> None:
    with heard() as notes:
        with hushed():
            warnings.warn("inner", UserWarning, stacklevel=1)
        warnings.warn("outer", UserWarning, stacklevel=1)
    assert notes == ["Its reader warns: outer."]
