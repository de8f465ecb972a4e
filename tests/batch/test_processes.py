"""What becomes of worker processes when the run itself is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cohort_factory import write_scan

pytest.importorskip("pyarrow", reason="pyarrow is not installed (medzsad[cohort])")

PATIENCE_S = 120


def wait_for(what) -> object:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def begun(marker: Path) -> int:
    try:
        return int(marker.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_a_run_that_is_killed_and_it_is_no_attempt(tmp_path):
    write_scan(tmp_path / "in" / "large.nii", 0, (128, 128, 200))
    command = "from medzsad.cli.main import main; main()"
    options = ["predict", "in", "-o", "out", "-m", "brightness", "--overlay", "none", "--jobs", "1", "-q"]
    run = subprocess.Popen([sys.executable, "-c", command, *options], cwd=tmp_path)
    try:
        marker = tmp_path / "out" / "attempts" / "large"
        worker = wait_for(lambda: begun(marker))
        assert not ended(worker)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    wait_for(lambda: ended(worker))
    assert not marker.exists()
