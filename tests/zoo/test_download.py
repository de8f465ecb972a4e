"""Downloads against a real server on this machine, with every fault it can have."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from medzsad.errors import ModelNotReady, OutputNotWritable
from medzsad.storage import cache
from medzsad.zoo import download as fetching
from medzsad.zoo.catalogue import WeightFile
from medzsad.zoo.download import Unreachable, download, dropped_file, hash_file, mismatch

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "BACKOFF", (0.01, 0.01, 0.01))


@pytest.fixture
def file(file_server, cache_dir: Path) -> WeightFile:
    file_server.files["/w.pt"] = CONTENT
    return WeightFile("thing", "clip", architecture="ViT-B-32", url=f"{file_server.url}/w.pt", sha256=SHA256)


def landed(cache_dir: Path) -> list[str]:
    return sorted(path.name for path in (cache_dir / "weights").glob("*"))


def test_a_file_is_downloaded_verified_and_its_progress_told(file, file_server, cache_dir) -> None:
    told: list[tuple[int, int | None]] = []
    path, found = download(file, progress=lambda done, total: told.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert found.sha256 == SHA256
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert landed(cache_dir) == []  # what is downloaded is not ready yet


def test_a_cut_connection_is_resumed_and_no_byte_is_sent_twice(file, file_server) -> None:
    file_server.cuts = [300_000, 100_000]
    path, _ = download(file)
    assert path.read_bytes() == CONTENT
    assert [start for _, start, _ in file_server.requests] == [0, 300_000, 400_000]
    assert file_server.sent == len(CONTENT)


def test_what_an_earlier_run_left_is_resumed(file, file_server) -> None:
    partial = cache.partial("thing")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:600_000])
    assert download(file)[0].read_bytes() == CONTENT
    assert file_server.requests == [("/w.pt", 600_000, len(CONTENT) - 600_000)]


def test_a_complete_partial_file_needs_no_server(file, file_server) -> None:
    partial = cache.partial("thing")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT)
    file_server.close()
    assert download(file)[0].read_bytes() == CONTENT


def test_a_server_that_ignores_range_sends_all_again(file, file_server) -> None:
    file_server.ignores_range = True
    file_server.cuts = [300_000]
    assert download(file)[0].read_bytes() == CONTENT
    assert [start for _, start, _ in file_server.requests] == [0, 0]


def test_a_partial_file_longer_than_the_servers_is_started_over(file, file_server) -> None:
    partial = cache.partial("thing")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT + b"more")
    assert download(file)[0].read_bytes() == CONTENT
    assert file_server.requests == [("/w.pt", len(CONTENT) + 4, 0), ("/w.pt", 0, len(CONTENT))]


def test_wrong_bytes_are_deleted_and_both_hashes_said(file, file_server, cache_dir) -> None:
    file_server.files["/w.pt"] = b"<html>please log in</html>"
    with pytest.raises(ModelNotReady) as caught:
        download(file)
    message = str(caught.value)
    assert SHA256 in message
    assert hashlib.sha256(file_server.files["/w.pt"]).hexdigest() in message
    assert "\n" not in message
    assert not cache.partial("thing").exists()
    assert landed(cache_dir) == []


def test_half_a_file_of_another_version_is_noticed(file, file_server) -> None:
    partial = cache.partial("thing")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 1000)
    with pytest.raises(ModelNotReady, match="expected sha256"):
        download(file)
    assert not partial.exists()
    assert download(file)[0].read_bytes() == CONTENT


def test_without_a_hash_nothing_is_joined_to_an_earlier_half(file_server, cache_dir) -> None:
    file_server.files["/w.pt"] = CONTENT
    partial = cache.partial("thing")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 1000)
    file = WeightFile("thing", "clip", architecture="ViT-B-32", url=f"{file_server.url}/w.pt")
    assert download(file)[1].sha256 == SHA256


@pytest.mark.parametrize("status", [404, 403])
def test_a_refusal_is_not_repeated(file, file_server, cache_dir, status) -> None:
    file_server.statuses["/w.pt"] = status
    with pytest.raises(Unreachable, match=str(status)):
        download(file)
    assert len(file_server.requests) == 1
    assert landed(cache_dir) == []


def test_a_server_in_trouble_is_asked_again_a_few_times(file, file_server) -> None:
    file_server.statuses["/w.pt"] = 503
    with pytest.raises(Unreachable, match=r"503.*tried 4 times"):
        download(file)
    assert len(file_server.requests) == 4


def test_a_server_that_always_cuts_at_once_is_given_up(file, file_server) -> None:
    file_server.cuts = [0] * 10
    with pytest.raises(Unreachable, match="broke"):
        download(file)
    assert len(file_server.requests) == 4


def test_offline_fails_at_once(file, file_server, cache_dir) -> None:
    file_server.close()
    partial = cache.partial("thing")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:1000])
    start = time.monotonic()
    with pytest.raises(Unreachable, match="cannot be reached"):
        download(file)
    assert time.monotonic() - start < 3
    assert partial.read_bytes() == CONTENT[:1000]  # kept for when there is a network again
    assert landed(cache_dir) == []


def test_a_server_that_falls_silent_is_waited_for_only_so_long(file, monkeypatch, cache_dir) -> None:
    monkeypatch.setattr(fetching, "READ_TIMEOUT", 0.2)
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/w.pt"
        with pytest.raises(Unreachable, match="timed out"):
            download(replace(file, url=url))
    assert 0.2 <= time.monotonic() - start < 3


def test_too_little_space_is_said_before_anything_is_written(file, monkeypatch, cache_dir) -> None:
    class Usage:
        free = 1_500_000  # the file fits, but not it and its converted copy

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(OutputNotWritable, match=r"2\.1 MB needed, 1\.5 MB free") as caught:
        download(file)
    assert "MEDZSAD_CACHE" in str(caught.value)
    assert not cache.partial("thing").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of file sizes")
def test_a_disk_that_fills_up_keeps_what_came_and_goes_on_later(file, file_server, cache_dir) -> None:
    code = (
        "import resource, sys\n"
        "from medzsad.zoo.download import download\n"
        "from medzsad.zoo.catalogue import WeightFile\n"
        "from medzsad.errors import OutputNotWritable\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        f"file = WeightFile('thing', 'clip', architecture='ViT-B-32', url={file.url!r}, sha256={SHA256!r})\n"
        "try:\n    download(file)\n"
        "except OutputNotWritable as error:\n    print(error)\n    sys.exit(7)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 7, result.stderr
    assert "no space left" in result.stdout
    assert "thing.partial" in result.stdout
    assert landed(cache_dir) == []
    assert cache.partial("thing").stat().st_size == 500_000
    assert download(file)[0].read_bytes() == CONTENT
    assert file_server.requests[-1][1] == 500_000


def test_a_folder_that_cannot_be_written(file, cache_dir) -> None:
    cache_dir.write_text("a file, where the cache should be")
    with pytest.raises(OutputNotWritable, match="MEDZSAD_CACHE"):
        download(file)


def test_a_file_without_an_address(cache_dir) -> None:
    with pytest.raises(Unreachable, match="no address"):
        download(WeightFile("mine", "adaclip"))


def test_a_mirror_on_a_share_is_read_like_a_server(tmp_path, cache_dir) -> None:
    (tmp_path / "w.pt").write_bytes(CONTENT)
    file = WeightFile("thing", "adaclip", url=(tmp_path / "w.pt").as_uri(), sha256=SHA256)
    assert download(file)[0].read_bytes() == CONTENT
    gone = WeightFile("thing", "adaclip", url=(tmp_path / "gone.pt").as_uri(), sha256="0" * 64)
    with pytest.raises(ModelNotReady, match=r"gone\.pt"):
        download(gone)


def test_hashes_are_those_of_sha256sum_and_git(tmp_path) -> None:
    path = tmp_path / "hello.txt"
    path.write_bytes(b"hello\n")
    found = hash_file(path)
    assert found.sha256 == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    assert found.git_blob == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object hello.txt
    fitting = ({"sha256": found.sha256}, {"sha256": found.sha256[:8]}, {"git_blob": found.git_blob}, {})
    for fields in fitting:
        assert mismatch(WeightFile("x", "adaclip", **fields), found) is None
    for fields in ({"sha256": "0" * 64}, {"sha256": "5891b5b6"}, {"git_blob": "0" * 40}):
        assert "expected" in mismatch(WeightFile("x", "adaclip", **fields), found)


def test_files_put_by_hand_are_found_under_either_name_unless_two_files_share_it(cache_dir) -> None:
    incoming = cache_dir / "incoming"
    incoming.mkdir(parents=True)
    first, second, third = (
        WeightFile("first", "anomalyclip", url="https://example.org/a/epoch_15.pth"),
        WeightFile("second", "anomalyclip", url="https://example.org/b/epoch_15.pth"),
        WeightFile("third", "clip", architecture="ViT-B-32", url="https://example.org/ViT-B-32.pt"),
    )
    known = {f.name: f for f in (first, second, third)}
    for name in ("epoch_15.pth", "ViT-B-32.pt", "second.pth"):
        (incoming / name).touch()
    assert dropped_file(first, known) is None
    assert dropped_file(second, known) == incoming / "second.pth"
    assert dropped_file(third, known) == incoming / "ViT-B-32.pt"
