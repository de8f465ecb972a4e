"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from medzsad.storage.atomic import replacing, sweep


def test_a_file_appears_with_its_folder_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for text in ("one", "two"):
        with replacing(path, suffix=".txt") as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".txt"
            temporary.write_text(text)
        assert path.read_text() == text
        assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_fails_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of file sizes")
@pytest.mark.slow
def test_a_checkpoint_on_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    code = """
        import resource, signal, sys
        import torch
        from medzsad.detectors.checkpoint import Checkpoint, save_checkpoint
        from medzsad.errors import OutputNotWritable

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            save_checkpoint(Checkpoint("mini", {"a": torch.zeros(100_000)}), sys.argv[1])
        except OutputNotWritable as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "c.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot write the checkpoint" in done.stdout
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_killed_runs_left_goes_after_a_day_and_nothing_else(tmp_path: Path) -> None:
    old = time.time() - 25 * 3600
    for name in (".medzsad-old", ".medzsad-new", "results", ".medzsad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        os.utime(tmp_path / name, (old, old) if name != ".medzsad-new" else None)
    (tmp_path / ".medzsad-old.partial").touch()
    os.utime(tmp_path / ".medzsad-old.partial", (old, old))
    outside = tmp_path / "results"
    (tmp_path / ".medzsad-link").symlink_to(outside)
    os.utime(tmp_path / ".medzsad-link", (old, old), follow_symlinks=False)
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".medzsad", ".medzsad-new", "results"]
    assert (outside / "file").exists()
    sweep(tmp_path / "nothing")
