"""The tests that the fast lane leaves out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMES = """
============================= slowest durations ==============================
3.00s call     tests/a/test_x.py::test_long[one]
2.00s setup    tests/a/test_x.py::test_long[two words]
4.00s call     tests/a/test_x.py::test_longer
1.00s call     tests/b/test_y.py::TestGroup::test_short
0.50s teardown tests/b/test_y.py::test_shortest
"""


def test_those_that_take_longest_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "times.txt").write_text(TIMES)
    command = [sys.executable, ROOT / "tools" / "slow_tests.py", tmp_path / "times.txt", "--seconds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tests/a/test_x.py::test_long", "tests/a/test_x.py::test_longer"]


def test_what_is_left_out_is_there() -> None:
    names = (ROOT / "tests" / "slow_tests.txt").read_text().split()
    assert names == sorted(set(names))
    for name in names:
        path, *_, function = name.split("::")
        assert f"def {function}(" in (ROOT / path).read_text(), name
