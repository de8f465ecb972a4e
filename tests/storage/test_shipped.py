"""What comes with the package is found by name, and a file of the user's own goes before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medzsad.errors import BadInput
from medzsad.storage.shipped import file_or_shipped, shipped


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("smoke", "smoke.yaml"):
        assert file_or_shipped(Path(name), "configs", ".yaml") == shipped("configs") / "smoke.yaml"
    for given in ("sub/smoke", "smoke.json", f"{tmp_path}/smoke"):
        assert file_or_shipped(Path(given), "configs", ".yaml") == Path(given)
    Path("smoke.yaml").write_text("name: mine")
    assert file_or_shipped(Path("smoke.yaml"), "configs", ".yaml") == Path("smoke.yaml")
    with pytest.raises(BadInput, match=r"nosuch: there is no such file.*headclip_visa, smoke"):
        file_or_shipped(Path("nosuch"), "configs", ".yaml")


def test_an_installed_package_has_them_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medzsad.storage.shipped._PACKAGE", tmp_path / "medzsad")
    assert shipped("configs") == tmp_path / "configs"
    (tmp_path / "medzsad/configs").mkdir(parents=True)
    assert shipped("configs") == tmp_path / "medzsad/configs"
