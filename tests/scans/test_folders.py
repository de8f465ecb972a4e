"""What lies in a folder: links, empty files, circles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medzsad.errors import BadInput
from medzsad.scans.folders import walk, why_unreadable


def test_every_folder_is_visited_once(tmp_path: Path) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "b/c/file").write_text("x")
    (tmp_path / "b/.hidden").write_text("x")
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "a").symlink_to(tmp_path / "b")  # by name the first, but only a link
    elsewhere = tmp_path.with_name(tmp_path.name + "-elsewhere")
    elsewhere.mkdir()
    (elsewhere / "linked").write_text("x")
    (tmp_path / "z").symlink_to(elsewhere)
    visited = [(str(folder.relative_to(tmp_path)), files) for folder, files, _ in walk(tmp_path)]
    assert [name for name, _ in visited] == [".", "b", "b/c", "z"]
    assert [file for _, files in visited for file in files] == [tmp_path / "b/c/file", tmp_path / "z/linked"]


def test_what_cannot_be_read_is_listed(tmp_path: Path) -> None:
    (tmp_path / "lost").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "empty").touch()
    (tmp_path / "good").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    ((_, files, faults),) = walk(tmp_path)
    assert files == [tmp_path / "good"]
    assert {path.name: fault for path, fault in faults.items()} == {
        "lost": "a link that leads nowhere",
        "circle": "a link that leads nowhere",
        "empty": "an empty file",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_what_may_not_be_opened(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    assert why_unreadable(tmp_path / "locked") == "a folder that may not be opened"
    with pytest.raises(BadInput, match="cannot be opened"):
        list(walk(tmp_path / "locked"))
