"""Tests of files of the Hugging Face hub: the variables of its own client are honoured."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from medzsad.zoo import fetch, hub
from medzsad.zoo.catalogue import WeightFile
from medzsad.zoo.download import Unreachable, download, hub_file

CONTENT = bytes(range(256)) * 16
FILE = WeightFile(
    "thing",
    "adaclip",
    url=f"{hub.HUB}/owner/name/resolve/main/folder/w.pth",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)
PATH = "/owner/name/resolve/main/folder/w.pth"


@pytest.fixture
def mirror(file_server, cache_dir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The file server as the hub, and an empty HF_HOME without a token."""
    monkeypatch.setattr(constants, "ENDPOINT", file_server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    file_server.files[PATH] = CONTENT
    return file_server


def test_the_variables_of_the_environment_are_read(file_server, cache_dir, tmp_path) -> None:
    """In a process of its own, for the client reads them once: mirror, and the token of HF_HOME."""
    file_server.files[PATH] = CONTENT
    (tmp_path / "token").write_text("hf_of_the_file\n")
    code = (
        "from medzsad.zoo.catalogue import WeightFile; from medzsad.zoo.download import download\n"
        f"print(download(WeightFile('thing', 'adaclip', url={FILE.url!r}, sha256={FILE.sha256!r}))[0])"
    )
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": file_server.url, "HF_HOME": str(tmp_path)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == CONTENT
    assert file_server.tokens == ["Bearer hf_of_the_file"]
    refused = subprocess.run(
        [*run[:2], code.replace("thing", "other")],
        capture_output=True, text=True, env=environment | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert "downloads are switched off (HF_HUB_OFFLINE)" in refused.stderr
    assert len(file_server.tokens) == 1


def test_a_token_goes_to_the_hub_and_not_to_where_it_leads(mirror, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    mirror.redirects[PATH] = f"{mirror.url}/storage"
    mirror.files["/storage"] = CONTENT
    assert download(FILE)[0].read_bytes() == CONTENT
    assert mirror.tokens == ["Bearer hf_secret", None]


def test_a_token_goes_to_no_other_server(mirror, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for url in (f"{mirror.url}{PATH}", f"{hub.HUB}.example/owner/name/resolve/main/w.pth"):
        assert hub.access_headers(url) == {}
        assert hub.address(url) == url


@pytest.mark.parametrize(("status", "said"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "answered 404")])
def test_a_closed_repository_asks_for_a_token(mirror, status, said) -> None:
    mirror.statuses[PATH] = status
    with pytest.raises(Unreachable, match=said) as caught:
        download(FILE)
    assert str(caught.value).startswith(f"{mirror.url}{PATH}: the server answered {status}")


def test_offline_nothing_is_asked_for_but_what_lies_here_is_taken(mirror, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match="switched off") as caught:
        fetch.prepare("thing", [FILE])
    assert f"     {mirror.url}{PATH}\n" in str(caught.value)  # what to do by hand
    (tmp_path / "w.pth").write_bytes(CONTENT)
    here = WeightFile("here", "adaclip", url=(tmp_path / "w.pth").as_uri(), sha256=FILE.sha256)
    assert download(here)[0].read_bytes() == CONTENT
    assert mirror.tokens == []


@pytest.mark.parametrize(("content", "is_taken"), [(CONTENT, True), (b"damaged", False)])
def test_the_hubs_own_cache_is_looked_into(mirror, tmp_path, content, is_taken) -> None:
    folder = tmp_path / "hub" / "models--owner--name"
    file = folder / "snapshots" / "abc" / "folder" / "w.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    assert hub_file(FILE) == (file if is_taken else None)
