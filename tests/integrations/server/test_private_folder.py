"""A folder that only this user can read, and that no killed server leaves for long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medzsad.errors import OutputNotWritable
from medzsad.integrations.server.private_folder import PrivateFolder


def test_it_is_private_and_goes(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path)
    inner = folder.folder("scan")
    (inner / "voxels").write_bytes(b"x")
    for path in (folder.path.parent, folder.path, inner):
        assert path.stat().st_mode & 0o777 == 0o700
    folder.close()
    assert not folder.path.exists()


def test_the_next_removes_what_a_killed_one_left_and_no_other(tmp_path: Path) -> None:
    alive = PrivateFolder(tmp_path)
    (alive.folder("scan") / "x").write_bytes(b"x")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from medzsad.integrations.server.private_folder import PrivateFolder\n"
        "folder = PrivateFolder(Path(sys.argv[1])); (folder.folder('scan') / 'x').write_bytes(b'x')\n"
        "print(folder.path, flush=True); os.kill(os.getpid(), 9)"
    )
    left = Path(
        subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True).stdout.strip()
    )
    assert (left / "scan" / "x").is_file()
    third = PrivateFolder(tmp_path)
    assert not left.exists()
    assert (alive.path / "scan" / "x").is_file()
    for folder in (alive, third):
        folder.close()


@pytest.mark.skipif(os.name != "posix", reason="links and owners")
def test_a_place_that_others_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"medzsad-serve-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputNotWritable, match="somebody else's"):
        PrivateFolder(tmp_path)
    with pytest.raises(OutputNotWritable, match="no private folder"):
        PrivateFolder(tmp_path / "missing")
