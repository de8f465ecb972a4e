"""Cores that a process may use, and that no library takes more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from medzsad import threads


@pytest.fixture
def fresh(monkeypatch):
    """The module as in a process that nobody told anything."""
    import torch

    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_AT_START", None)
    monkeypatch.setattr(threads, "_chosen", None)
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("nonsense", 8)]
)
def test_a_control_group_takes_cores_away(fresh, tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(quota)
    fresh.setattr(threads, "CGROUP", tmp_path)
    fresh.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.available_cores() == cores


def test_the_older_form_of_control_groups(fresh, tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    fresh.setattr(threads, "CGROUP", tmp_path)
    fresh.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.available_cores() == 3


def test_what_the_user_set_holds_and_an_option_is_stronger(fresh):
    fresh.setattr(threads, "_AT_START", "3")
    assert threads.limit_threads() == 3
    assert threads.share_of_threads(4) == 3
    assert threads.limit_threads(8) == 8
    assert threads.share_of_threads(4) == 2
    assert os.environ["OPENBLAS_NUM_THREADS"] == "8"


def test_workers_and_computing_share_the_cores(fresh):
    fresh.setattr(threads, "available_cores", lambda: 4)
    assert threads.limit_threads(workers=3) == 1
    assert threads.share_of_threads(2) == 2
    assert threads.share_of_threads(9) == 1


def test_the_command_line_tells_torch():
    code = (
        "from medzsad.cli.main import run\n"
        "run(['predict', '--threads', '1', 'nothing.nii'])\n"
        "import torch\nprint(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-1] == "1"
