"""``medzsad example``, and recipes by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import pytest

Call = Callable[..., tuple[int, str, str]]


def test_it_writes_the_phantom_and_replaces_nothing_else(medzsad: Call, tmp_path: Path) -> None:
    code, out, _ = medzsad("example", "-o", tmp_path / "new")
    scan, lesion = (tmp_path / "new" / f"head_phantom{end}.nii.gz" for end in ("", "_lesion"))
    assert (code, out.splitlines()[:2]) == (0, [str(scan), str(lesion)])
    assert nibabel.load(scan).shape == nibabel.load(lesion).shape
    assert f"medzsad predict {scan}" in out
    assert medzsad("example", "-o", tmp_path / "new")[0] == 0
    scan.write_bytes(b"mine")
    code, _, err = medzsad("example", "-o", tmp_path / "new")
    assert (code, scan.read_bytes()) == (2, b"mine")
    assert "is another file" in err
    (tmp_path / "file").touch()
    assert medzsad("example", "-o", tmp_path / "file" / "sub")[0] == 2


def test_a_recipe_by_name(medzsad: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = medzsad("train", "--config", "smoke", "--dry-run")
    assert code == 0
    assert out.startswith("name: smoke\n")
    code, _, err = medzsad("train", "--config", "smok", "--dry-run")
    assert code == 2
    assert "headclip_visa, smoke" in err
