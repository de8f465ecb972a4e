"""What libraries say of files: as notes instead of lines on stderr, or nothing."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

LENGTH = 150

# Files are read by several threads at once, and ``warnings.catch_warnings`` is for one: the first thread that
# listens enters it, and the last one leaves it; each has a list of its own.
_lock = threading.Lock()
_listening = 0
_before = warnings.catch_warnings()
_mine = threading.local()
_muted: dict[str, tuple[int, int]] = {}  # loggers, their levels before, and how many blocks mute them


@contextlib.contextmanager
def heard(*loggers: str) -> Iterator[list[str]]:
    """Collect user warnings, and what these loggers say, while files are read; other warnings are hushed.

    Args:
        loggers: names of loggers, such as ``"nibabel.global"``; they print nothing meanwhile.

    Yields:
        A list that, after the block, holds a note for each different message, one line each.
    """
    notes: list[str] = []
    messages: list[str] = []
    stack = _mine.__dict__.setdefault("lists", [])
    records = _Records(messages)
    _listen()
    stack.append(messages)
    for name in loggers:
        logging.getLogger(name).addFilter(records)
    try:
        yield notes
    finally:
        for name in loggers:
            logging.getLogger(name).removeFilter(records)
        stack.pop()
        _stop_listening()
    notes += dict.fromkeys(f"Its reader warns: {one_line(message)}." for message in messages)


@contextlib.contextmanager
def hushed(*loggers: str) -> Iterator[None]:
    """Show no warnings of libraries, and nothing that these loggers say, which may quote patient data.

    Unlike ``warnings.catch_warnings``, this and :func:`heard` are for several threads at once: one that
    leaves does not let another's warnings out. (A ``catch_warnings`` of somebody else in another thread can.)

    Args:
        loggers: names of loggers; those below them say nothing either, unless they have a level of their own.
    """
    stack = _mine.__dict__.setdefault("lists", [])
    _listen()
    stack.append(None)
    for name in loggers:
        _mute(name)
    try:
        yield
    finally:
        for name in loggers:
            _unmute(name)
        stack.pop()
        _stop_listening()


def one_line(message: object) -> str:
    """Return a library's message, or an error's, as a piece of a line."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(message))
    return " ".join(text.split())[:LENGTH].rstrip(".") or type(message).__name__


def _listen() -> None:
    global _listening, _before
    with _lock:
        if _listening == 0:
            _before = warnings.catch_warnings()
            _before.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = _show
        _listening += 1


def _stop_listening() -> None:
    global _listening
    with _lock:
        _listening -= 1
        if _listening == 0:
            _before.__exit__(None, None, None)


def _mute(name: str) -> None:
    logger = logging.getLogger(name)
    with _lock:
        before, muted = _muted.get(name, (logger.level, 0))
        _muted[name] = (before, muted + 1)
        logger.setLevel(logging.CRITICAL + 1)


def _unmute(name: str) -> None:
    with _lock:
        before, muted = _muted.pop(name)
        if muted > 1:
            _muted[name] = (before, muted - 1)
        else:
            logging.getLogger(name).setLevel(before)


def _show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Keep a warning for the thread that it was raised in."""
    lists = _mine.__dict__.get("lists")
    if lists and lists[-1] is not None and issubclass(category, UserWarning):
        lists[-1].append(str(message))


class _Records(logging.Filter):
    """Keeps what is logged in its own thread, and lets the rest pass."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self._messages, self._thread = messages, threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self._thread:
            return True
        self._messages.append(record.getMessage())
        return False
