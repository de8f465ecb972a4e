"""From catalogue entries to weights that are ready, by download or by hand."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medzsad.errors import ModelNotReady, OutputNotWritable
from medzsad.storage import cache
from medzsad.zoo import download as fetching
from medzsad.zoo.catalogue import catalogue, find_entry
from medzsad.zoo.download import Unreachable, hash_file
from medzsad.zoo.fetch import by_hand, prepare, require_ready


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "BACKOFF", (0.01, 0.01))


@pytest.fixture
def served(file_server, small_weights, cache_dir, tmp_path, monkeypatch) -> Path:
    """A catalogue with one model of two files, which the server has. Returns the catalogue."""
    file_server.files = {
        "/small-clip.pt": small_weights.clip.read_bytes(),
        "/epoch_15.pth": small_weights.anomalyclip.read_bytes(),
    }
    content = {
        "files": {
            "tiny-clip": {
                "kind": "clip",
                "architecture": small_weights.architecture,
                "url": f"{file_server.url}/small-clip.pt",
                "sha256": hash_file(small_weights.clip).sha256,
                "megabytes": 8,
            },
            "tiny-prompts": {
                "kind": "anomalyclip",
                "url": f"{file_server.url}/epoch_15.pth",
                "git_blob": hash_file(small_weights.anomalyclip).git_blob,
            },
        },
        "models": {"tiny": {"method": "anomalyclip", "clip": "tiny-clip", "adapter": "tiny-prompts"}},
    }
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(path))
    return path


def fetch(name: str = "tiny", **options) -> list[str]:
    known = catalogue()
    return [f.name for f in prepare(name, [known.files[p] for p in known.models[name].parts], **options)]


def test_a_model_is_made_ready_once(served, file_server, cache_dir) -> None:
    with pytest.raises(
        ModelNotReady, match=r"tiny-clip \(8 MB\) and tiny-prompts missing.*models fetch tiny"
    ):
        require_ready(find_entry("tiny"))
    assert fetch() == ["tiny-clip", "tiny-prompts"]
    require_ready(find_entry("tiny"))
    assert fetch() == []
    assert len(file_server.requests) == 2
    assert cache.read_facts("tiny-prompts")["verified"] is True
    assert cache.read_facts("tiny-prompts")["source"] == "epoch_15.pth"
    kept = sorted(path.name for path in cache_dir.rglob("*") if path.is_file())
    assert kept == [
        "tiny-clip.lock",
        "tiny-clip.safetensors",
        "tiny-prompts.lock",
        "tiny-prompts.safetensors",
    ]


def test_files_put_by_hand_are_taken_verified_and_left_where_they_are(
    served, file_server, small_weights, cache_dir
) -> None:
    file_server.close()
    incoming = cache_dir / "incoming"
    incoming.mkdir(parents=True)
    (incoming / "tiny-clip.pt").write_bytes(small_weights.clip.read_bytes())
    (incoming / "epoch_15.pth").write_bytes(b"something else")
    said: list[str] = []
    # In the package's catalogue two files are called epoch_15.pth, so that this name says nothing.
    with pytest.raises(Unreachable, match=r"Put it as\n .*incoming.tiny-prompts\.pth"):
        fetch(say=said.append)
    assert cache.is_ready("tiny-clip")  # what could be done was done
    assert "no longer needed" in said[0]
    (incoming / "tiny-prompts.pth").write_bytes(b"something else")
    with pytest.raises(ModelNotReady, match=r"tiny-prompts\.pth: not the file.*expected git blob"):
        fetch()
    (incoming / "tiny-prompts.pth").write_bytes(small_weights.anomalyclip.read_bytes())
    assert fetch() == ["tiny-prompts"]
    assert (incoming / "tiny-prompts.pth").is_file()
    assert file_server.requests == []


def test_offline_numbered_steps_say_every_file_its_place_and_the_command(
    served, file_server, cache_dir
) -> None:
    file_server.close()
    with pytest.raises(Unreachable) as caught:
        fetch()
    message = str(caught.value)
    known = catalogue().files
    for name, kept_as in (("tiny-clip", "tiny-clip.pt"), ("tiny-prompts", "tiny-prompts.pth")):
        assert message.splitlines().count(f"     {known[name].url}") == 1  # alone in its line, to be copied
        assert message.splitlines().count(f"     {cache_dir / 'incoming' / kept_as}") == 1
    assert known["tiny-clip"].sha256 in message
    steps = [
        line.split(".")[0].strip() for line in message.splitlines() if line[:3] == "  " + line[2:3] != "   "
    ]
    assert steps == ["1", "2", "3", "4", "5"]
    assert message.endswith("  5. Run: medzsad models fetch tiny")
    assert list((cache_dir / "weights").glob("*")) == []


def test_wrong_bytes_leave_nothing_behind(served, file_server, cache_dir) -> None:
    file_server.files["/small-clip.pt"] = b"<html>please log in</html>"
    with pytest.raises(ModelNotReady, match="expected sha256"):
        fetch()
    assert [p.name for p in cache_dir.rglob("*") if p.is_file()] == ["tiny-clip.lock"]


def test_an_unverified_file_that_is_no_weights_is_deleted(served, file_server, cache_dir) -> None:
    content = yaml.safe_load(served.read_text())
    del content["files"]["tiny-clip"]["sha256"]
    served.write_text(yaml.safe_dump(content))
    original, file_server.files["/small-clip.pt"] = (
        file_server.files["/small-clip.pt"],
        b"<html>log in</html>",
    )
    with pytest.raises(ModelNotReady):
        fetch()
    assert [p.name for p in cache_dir.rglob("*") if p.is_file()] == ["tiny-clip.lock"]
    file_server.files["/small-clip.pt"] = original
    said: list[str] = []
    fetch(say=said.append)
    assert any("unverified" in line and hashlib.sha256(original).hexdigest() in line for line in said)
    assert cache.read_facts("tiny-clip")["verified"] is False


def test_a_disk_that_fills_up_while_converting_keeps_the_download(
    served, file_server, cache_dir, monkeypatch
) -> None:
    from medzsad.zoo import convert as importing

    def full(*_args, **_kwargs) -> None:
        raise OutputNotWritable("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(importing, "install", full)
        with pytest.raises(OutputNotWritable):
            fetch()
    assert list((cache_dir / "weights").glob("*")) == []
    assert fetch() == ["tiny-clip", "tiny-prompts"]
    assert [path for path, _, _ in file_server.requests].count("/small-clip.pt") == 1


def test_two_processes_fetching_the_same_download_it_once(served, file_server, cache_dir) -> None:
    code = (
        "from medzsad.zoo.fetch import prepare\nfrom medzsad.zoo.catalogue import weight_files\n"
        "prepare('tiny', [weight_files()['tiny-clip']])\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in both:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert len(file_server.requests) == 1
    assert cache.is_ready("tiny-clip")


def test_a_file_without_an_address_is_to_be_imported(cache_dir, tmp_path, monkeypatch) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(
        "files: {ours: {kind: adaclip}}\n"
        "models: {ours: {method: adaclip, clip: clip-vit-l-14-336-openai, adapter: ours}}"
    )
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(path))
    with pytest.raises(ModelNotReady, match="medzsad models import FILE `as` ours"):
        require_ready(find_entry("ours"), given=["clip-vit-l-14-336-openai"])
    require_ready(find_entry("ours"), given=["clip-vit-l-14-336-openai", "ours"])
    assert by_hand([], "ours") == ""
