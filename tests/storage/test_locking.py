from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from medzsad.errors import OutputNotWritable
from medzsad.storage.locking import locked


def test_a_lock_is_held_by_one_and_released_when_its_holder_is_killed(tmp_path) -> None:
    path = tmp_path / "x.lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom medzsad.storage.locking import locked\n"
        f"with locked(Path({str(path)!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        waited, entered = threading.Event(), threading.Event()

        def enter() -> None:
            with locked(path, on_wait=waited.set):
                entered.set()

        thread = threading.Thread(target=enter, daemon=True)
        thread.start()
        assert waited.wait(5)
        assert not entered.wait(0.3)
        holder.kill()
        assert entered.wait(5)
        thread.join(5)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_lock_that_cannot_be_created(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputNotWritable, match="file"), locked(tmp_path / "file" / "x.lock"):
        pass
