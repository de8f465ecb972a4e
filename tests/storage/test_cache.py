from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medzsad.errors import ModelNotReady, OutputNotWritable
from medzsad.storage import cache


def store(name: str, **record: object) -> Path:
    path = cache.slot(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"x": torch.zeros(1000)}, path, metadata={cache.METADATA_KEY: json.dumps(record)})
    return path


def test_the_variable_decides_where_the_cache_is_and_the_platform_otherwise(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "here"))
    assert cache.cache_folder() == tmp_path / "here"
    assert cache.slot("thing") == tmp_path / "here" / "weights" / "thing.safetensors"
    monkeypatch.setenv("MEDZSAD_CACHE", "~/there")
    assert cache.cache_folder() == Path.home() / "there"
    monkeypatch.delenv("MEDZSAD_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache.cache_folder() == tmp_path / "xdg" / "medzsad"
    assert cache.cache_folder().name.lower() == "medzsad" or "medzsad" in str(cache.cache_folder())


def test_a_whole_file_is_ready_and_a_damaged_one_is_not(cache_dir) -> None:
    assert not cache.is_ready("thing")
    path = store("thing", source_sha256="abc")
    assert cache.read_facts("thing") == {"source_sha256": "abc"}
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole[:4], b"", b"\xff" * 100, whole[:8] + b"[]" + whole[10:]):
        path.write_bytes(damaged)
        assert not cache.is_ready("thing"), damaged[:20]


def test_headers_are_read_without_torch_and_foreign_files_refused(tmp_path) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / "a.safetensors", metadata={"who": "me"})
    metadata, size = cache.read_header(tmp_path / "a.safetensors")
    assert metadata == {"who": "me"}
    assert size == (tmp_path / "a.safetensors").stat().st_size
    (tmp_path / "b.safetensors").write_text("no tensors here")
    with pytest.raises(ModelNotReady, match=r"b\.safetensors"):
        cache.read_header(tmp_path / "b.safetensors")


def test_sizes_and_removal_count_all_pieces_of_a_name_and_nothing_else(cache_dir) -> None:
    store("thing")
    store("thing-2")
    cache.partial("thing").parent.mkdir(parents=True)
    cache.partial("thing").write_bytes(b"x" * 500)
    left_behind = cache.partial("thing").with_name("thing=abc.writing")
    left_behind.write_bytes(b"x" * 70)
    whole = cache.slot("thing").stat().st_size
    assert cache.size_of("thing") == whole + 570
    assert cache.total_size() == 2 * whole + 570
    assert cache.remove("thing") == whole + 570
    assert cache.size_of("thing") == 0
    assert not left_behind.exists()
    assert cache.is_ready("thing-2")
    assert cache.remove("thing") == 0


def test_a_landing_replaces_whole_files_or_nothing(cache_dir) -> None:
    path = cache.slot("thing")
    with cache.landing(path) as temporary:
        temporary.write_bytes(b"first")
        assert not path.exists()

    def interrupted() -> None:
        with cache.landing(path) as temporary:
            temporary.write_bytes(b"sec")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_bytes() == b"first"
    assert sorted(p.name for p in cache_dir.rglob("*") if p.is_file()) == ["thing.safetensors"]
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o644


def test_too_little_space_names_the_folder_and_the_way_out(cache_dir) -> None:
    with pytest.raises(OutputNotWritable, match="MEDZSAD_CACHE") as caught:
        cache.require_space(cache.slot("thing"), 10**18, "thing")
    assert str(cache_dir) in str(caught.value)
    assert not cache_dir.exists()
    cache.require_space(cache.slot("thing"), 1, "thing")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (5, "0.1 MB"),
        (2_097_152, "2.1 MB"),
        (42_700_000, "43 MB"),
        (934_000_000, "934 MB"),
        (78_600_000_000, "78.6 GB"),
    ],
)
def test_sizes_for_people(size, text) -> None:
    assert cache.in_megabytes(size) == text


def test_a_lock_is_held_by_one_and_released_when_its_holder_is_killed(tmp_path) -> None:
    path = tmp_path / "x.lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom medzsad.storage.cache import locked\n"
        f"with locked(Path({str(path)!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        waited, entered = threading.Event(), threading.Event()

        def enter() -> None:
            with cache.locked(path, on_wait=waited.set):
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
    with pytest.raises(OutputNotWritable, match="file"), cache.locked(tmp_path / "file" / "x.lock"):
        pass


def test_a_file_system_without_locks_holds_nothing_and_goes_on(tmp_path, monkeypatch) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with cache.locked(tmp_path / "x.lock"):
        pass
