"""What the library logs, as the command line prints it."""

from __future__ import annotations

import logging

import pytest

from medzsad.cli import main
from medzsad.cli.options import tell
from medzsad.cli.terminal import show_log


@pytest.fixture
def shown():
    yield show_log
    show_log(None)


def test_the_library_is_silent_until_a_command_shows_its_log(shown, capsys):
    log = logging.getLogger("medzsad.zoo.fetch")
    log.info("before")
    shown()
    log.info("%s: choose another `device`", "clip")
    log.debug("details")
    logging.getLogger("other").info("somebody else's")
    assert capsys.readouterr() == ("", "clip: choose another --device\n")


def test_a_message_is_printed_once_whoever_sets_up_logging(shown, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [logging.StreamHandler()])
    shown(print)
    shown(print)
    logging.getLogger("medzsad.training").info("epoch 1")
    assert capsys.readouterr() == ("epoch 1\n", "")


def test_a_command_shows_its_log_no_longer_than_it_runs(monkeypatch, capsys):
    monkeypatch.setattr(main.cli, "main", lambda *_, **__: show_log(tell))
    assert main.run(["doctor"]) == 0
    logging.getLogger("medzsad").info("after")
    assert capsys.readouterr().err == ""
