"""Freed memory stays with the process that asks for it, and nothing else changes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from medzsad import heap

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
FAULTS = """
import resource, sys
from medzsad.heap import keep_freed_memory
kept = len(sys.argv) > 1 and keep_freed_memory()
import numpy as np
def use():
    for _ in range(20):
        [np.ones(size * 2**17) for size in (12, 8, 8)]  # MiB
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(*arguments: str, **variables: str) -> tuple[bool, int]:
    env = {name: value for name, value in os.environ.items() if name not in heap.VARIABLES} | variables
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True, env=env
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@glibc
def test_pages_are_not_taken_anew() -> None:
    kept, faults = run("keep")
    assert kept
    assert faults < 50
    assert run()[1] > 100  # of 4 kB or 2 MB each


@glibc
def test_what_the_user_tunes_stays() -> None:
    assert run("keep", MALLOC_TRIM_THRESHOLD_="0")[0] is False


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert heap.keep_freed_memory() is False
