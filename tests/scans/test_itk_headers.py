"""NRRD and MetaImage files whose voxels are missing, cut or damaged are refused before ITK reads them."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medzsad.errors import BadInput
from medzsad.scans.readers import read_scan

VOXELS = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
SUFFIXES = [".nrrd", ".nhdr", ".mha", ".mhd"]


def written(path: Path, *, packed: bool = False) -> Path:
    """An image; returns the file with its voxels."""
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS), str(path), useCompression=packed)
    return next(
        (file for file in path.parent.iterdir() if "raw" in file.suffixes[-1] or file.suffix == ".gz"), path
    )


def refused(path: Path, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match=words) as error:
        read_scan(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("packed", [False, True])
def test_voxels_that_are_cut_short(
    tmp_path: Path, suffix: str, packed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path / f"a{suffix}", packed=packed)
    data.write_bytes(data.read_bytes()[:-100])
    refused(tmp_path / f"a{suffix}", "cut short", capfd)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_compression_is_no_scan(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path / f"a{suffix}", packed=True)
    content = bytearray(data.read_bytes())
    content[-500] ^= 0x10
    data.write_bytes(content)
    refused(tmp_path / f"a{suffix}", "damaged", capfd)


@pytest.mark.parametrize(("suffix", "pack"), [(".nhdr", gzip.compress), (".mhd", zlib.compress)])
def test_packed_voxels_without_an_end_are_not_unpacked_to_it(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path / f"a{suffix}", packed=True)
    data.write_bytes(pack(VOXELS.tobytes() + bytes(8 << 20)))
    refused(tmp_path / f"a{suffix}", "holds more voxels than its header says", capfd)


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
def test_voxels_in_another_file(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    header = tmp_path / f"a{suffix}"
    data = written(header)
    data.unlink()
    refused(header, f"{data.name}: no such file", capfd)
    os.mkfifo(data)
    refused(header, "a pipe, socket or device", capfd)
    text = header.read_text()
    header.write_text(text.replace(data.name, "/dev/zero"))
    refused(header, "a pipe, socket or device", capfd)


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
@pytest.mark.parametrize("how", ["LIST", "s%02d.raw 0 8 1"])
def test_voxels_in_a_file_for_each_slice(
    tmp_path: Path, suffix: str, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    header = tmp_path / f"a{suffix}"
    data = written(header)
    data.unlink()
    names = [f"s{k:02d}.raw" for k in range(9)]
    for name, plane in zip(names, VOXELS, strict=True):
        (tmp_path / name).write_bytes(plane.tobytes())
    listed = how if how != "LIST" else "\n".join(["LIST", *names])
    header.write_text(header.read_text().replace(data.name, listed))
    np.testing.assert_array_equal(read_scan(header).voxels, VOXELS.transpose(2, 1, 0))
    (tmp_path / names[4]).unlink()
    refused(header, "s04.raw: no such file", capfd)


def test_other_text_is_no_header(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mha").write_text("hello\n")
    refused(tmp_path / "a.mha", "no ndims", capfd)


def test_directions_of_no_axis_are_no_voxel_size(tmp_path: Path) -> None:
    written(tmp_path / "a.nrrd")
    content = (tmp_path / "a.nrrd").read_bytes()
    start, end = content.index(b"space directions"), content.index(b"\nkinds")
    (tmp_path / "a.nrrd").write_bytes(content[:start] + b"space directions: none none none" + content[end:])
    scan = read_scan(tmp_path / "a.nrrd")
    assert not scan.has_geometry
    assert any("voxel size is not known" in note for note in scan.notes)
