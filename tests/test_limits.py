"""What a file may claim, and how a user raises that."""

from __future__ import annotations

import os

import pytest

from medzsad import limits
from medzsad.errors import BadInput, ModelNotReady
from medzsad.limits import DEFAULTS, check_batch, check_packed, check_volume, limit, require_file


def test_a_limit_is_raised_by_its_variable(monkeypatch) -> None:
    with pytest.raises(BadInput, match="raise the limit with the environment variable MEDZSAD_MAX_SLICES"):
        check_volume("x", 10, 10, 30_000)
    monkeypatch.setenv("MEDZSAD_MAX_SLICES", "3e4")
    check_volume("x", 10, 10, 30_000)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "many", "1e999"])
def test_a_variable_that_is_no_number_is_said(monkeypatch, value) -> None:
    monkeypatch.setenv("MEDZSAD_MAX_PIXELS", value)
    with pytest.raises(BadInput, match="MEDZSAD_MAX_PIXELS="):
        limit("MEDZSAD_MAX_PIXELS")


@pytest.mark.parametrize(
    "shape",
    [(60_000, 60_000, 1), (2**62, 1, 1), (30_000, 30_000, 30_000), (1, 1, 2**31), (1e308, 1e308, 1e308)],
)
def test_impossible_sizes_are_refused(shape) -> None:
    with pytest.raises(BadInput, match="x claims"):
        check_volume("x", *shape)


def test_a_real_whole_body_ct_is_let_through_where_there_is_memory(monkeypatch) -> None:
    monkeypatch.setattr(limits, "available_memory", lambda: 16_000_000_000)
    check_volume("x", 512, 512, 3000)
    monkeypatch.setattr(limits, "available_memory", lambda: 4_000_000_000)
    with pytest.raises(BadInput, match=r"4\.0 GB are free"):
        check_volume("x", 512, 512, 3000)


def test_what_unpacks_to_hundreds_of_times_its_size_is_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(bytes(2_000_000))
    with pytest.raises(BadInput, match=r"has 2\.0 MB and would unpack to 2\.0 GB"):
        check_packed(path, 2e9)
    check_packed(path, 4e8)  # a label map of one value shrinks as much
    monkeypatch.setenv("MEDZSAD_MAX_VOXELS", "2e9")
    check_packed(path, 2e9)


def test_batches() -> None:
    check_batch(518, 64, "--size")
    for size, batch in ((99_999, 1), (518, 10**9)):
        with pytest.raises(BadInput, match="pixels a batch"):
            check_batch(size, batch, "--size")


def test_only_regular_files(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert require_file(tmp_path / "file") == tmp_path / "file"
    for name, message in (
        (tmp_path / "pipe", "a pipe"),
        ("/dev/zero", "device"),
        (tmp_path, "a folder"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "loop", "cannot be read"),
        (str(tmp_path / "a\0b"), "no name"),
        (tmp_path / ("n" * 300), "too long"),
    ):
        with pytest.raises(ModelNotReady, match=message):
            require_file(name, ModelNotReady)


def test_every_limit_is_documented() -> None:
    text = (limits.Path(__file__).parents[1] / "docs" / "limits.md").read_text(encoding="utf-8")
    for variable, (default, _) in DEFAULTS.items():
        assert variable in text
        assert f"{default:,}" in text
