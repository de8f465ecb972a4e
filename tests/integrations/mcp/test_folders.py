"""Which files an agent may have read and written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medzsad.errors import BadInput, OutputNotWritable
from medzsad.integrations.mcp.folders import Folders


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """``work`` to work in, ``scans`` to read from, ``secret`` for nobody."""
    for name in ("work/in", "scans", "secret"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.nii").write_bytes(b"x")
    return Folders(tmp_path / "work", [tmp_path / "scans"])


def test_what_lies_in_the_folders_may_be_read(folders: Folders, tmp_path: Path) -> None:
    assert folders.input("in/a.nii") == tmp_path / "work/in/a.nii"
    assert folders.input(".") == tmp_path / "work"
    assert folders.input(str(tmp_path / "scans/a.nii")) == tmp_path / "scans/a.nii"
    assert folders.name(folders.input("in/a.nii")) == "in/a.nii"
    assert folders.name(tmp_path / "scans/a.nii") == str(tmp_path / "scans/a.nii")


@pytest.mark.parametrize(
    "text",
    ["../secret/a.nii", "in/../../secret", "/etc/passwd", "~/a.nii", "", " ", "in/a\0.nii", "dicomweb://x/y"],
)
def test_nothing_else_may(folders: Folders, text: str) -> None:
    with pytest.raises(BadInput):
        folders.input(text)


def test_links_are_followed_before_that_is_decided(folders: Folders, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "link.nii").symlink_to(tmp_path / "secret/a.nii")
    (work / "door").symlink_to(tmp_path / "secret")
    (work / "to_scans").symlink_to(tmp_path / "scans")
    for text in ("link.nii", "door", "door/a.nii"):
        with pytest.raises(BadInput, match="outside the folders"):
            folders.input(text)
    with pytest.raises(BadInput, match="leads to files outside"):
        folders.input(".")  # for the links in it
    assert folders.input("to_scans/a.nii") == tmp_path / "scans/a.nii"
    series = work / "series"
    series.mkdir()
    (series / "1.dcm").write_bytes(b"x")
    (series / "2.dcm").symlink_to(tmp_path / "secret/a.nii")
    with pytest.raises(BadInput, match="leads to files outside"):
        folders.input("series/1.dcm")  # whose series are the files beside it


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.mhd", "NDims = 3\nElementDataFile = /etc/passwd\n"),
        ("a.mha", "NDims = 3\nElementDataFile = ../../secret/a.nii\n"),
        ("a.mha", "NDims = 3\nelementdatafile = LOCAL\nElementDataFile = /etc/passwd\n"),
        ("a.nhdr", "NRRD0004\ntype: uchar\ndata file: /etc/passwd\n\n"),
        ("a.nrrd", "NRRD0004\ntype: uchar\nDataFile: /etc/passwd\n\n"),
        ("a.nrrd", "NRRD0004\n" + "# x\n" * 300_000 + "data file: /etc/passwd\n\n"),
    ],
)
def test_headers_that_name_other_files_are_refused(
    folders: Folders, tmp_path: Path, name: str, header: str
) -> None:
    (tmp_path / "work/in" / name).write_text(header)
    for text in (f"in/{name}", "in"):
        with pytest.raises(BadInput, match="keeps its voxels in another file"):
            folders.input(text)
    (tmp_path / "work/in" / name).write_text("NRRD0004\ntype: uchar\n\nxx data file: /etc\n")
    if name == "a.nrrd":
        assert folders.input("in")


def test_results_go_below_the_folder_alone(folders: Folders, tmp_path: Path) -> None:
    assert folders.output("results/a") == tmp_path / "work/results/a"
    os.symlink(tmp_path / "scans", tmp_path / "work/out")
    os.makedirs(tmp_path / "work/odd")
    os.symlink(tmp_path / "scans", tmp_path / "work/odd/.medzsad")
    for text in ("../scans", "/tmp", "out", "out/deeper", "odd"):
        with pytest.raises(OutputNotWritable, match="results are written below"):
            folders.output(text)


def test_a_folder_to_read_from_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        Folders(tmp_path, [tmp_path / "gone"])
