"""What is said while the command line works, on a terminal and in a log, and what the library logs."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medzsad.cli import main, terminal
from medzsad.cli.options import tell
from medzsad.cli.terminal import show_log

EXAMPLE = Path(__file__).parents[2] / "examples" / "head_phantom.nii.gz"


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


def test_a_run_of_several_scans_tells_the_number_and_the_time_left(monkeypatch):
    clock = iter([100.0, 160.0])
    count = terminal.Countdown(4)
    count.advance()  # known of an earlier run
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    assert count.before("reading a") == "2/4: reading a"
    count.advance()
    assert count.before("reading b") == "3/4, about 2 min 0 s left: reading b"
    assert terminal.Countdown(1).before("reading a") == "reading a"


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


def test_a_log_gets_a_line_even_while_one_item_lasts(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "LOG_EVERY_S", 0.05)
    for item in terminal.progress_of("ours")(range(3), total=3):
        time.sleep(0.3 if item == 1 else 0)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("ours: 1 of 3 in 0 s") for line in lines)
    before = len(lines)
    time.sleep(0.2)
    assert len(capsys.readouterr().err.splitlines()) == 0, before  # it ends with the work


def test_a_terminal_is_told_within_two_seconds_and_of_each_phase(tmp_path):
    leader, follower = pty.openpty()
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "medzsad", "predict", EXAMPLE, "-o", tmp_path, "-m", "brightness"],
        stderr=follower,
        stdout=subprocess.DEVNULL,
    )
    os.close(follower)
    said, first = b"", None
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # how Linux says that nobody writes any more
            break
        if not part:
            break
        first = first or time.monotonic() - began
        said += part
    assert process.wait(timeout=60) == 0
    text = said.decode()
    for phase in ("starting", "reading head_phantom", "loading brightness", "writing head_phantom"):
        assert f"{phase} ..." in text
    assert text.rindex("writing") < text.rindex(terminal.CLEAR)  # nothing of it stays
    assert text.index("starting") < text.index("reading")
    assert first is not None


def test_notes_that_scans_share_are_said_once_with_a_count(tmp_path, medzsad):
    import shutil

    for name in ("a", "b", "c"):
        shutil.copy(EXAMPLE, tmp_path / f"{name}.nii.gz")
    code, _, err = medzsad("predict", tmp_path, "-o", tmp_path / "out", "-m", "brightness")
    assert code == 0
    notes = [line for line in err.splitlines() if "modality" in line.lower()]
    assert len(notes) == 2
    assert notes[0].startswith("a: ")
    assert notes[1].startswith("2 more scans: ")


def test_a_log_is_told_how_far_a_cohort_is_and_of_failures(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "LOG_EVERY_S", 0.05)
    with terminal.scans_bar(100) as tell:
        tell(0)
        tell(1)
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("scans: 2 of 100, 1 failed in 0 s, about ")
    assert lines[-1].endswith(" left")
