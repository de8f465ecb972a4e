from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from medzsad.storage import cache
from medzsad.zoo.catalogue import entries, weight_files
from medzsad.zoo.download import hash_file

pytestmark = pytest.mark.usefixtures("cache_dir")


@pytest.fixture
def served(file_server, small_weights, tmp_path, monkeypatch) -> None:
    """The AnomalyCLIP models of the catalogue on small files that the server has."""
    file_server.files = {
        "/clip.pt": small_weights.clip.read_bytes(),
        "/epoch_15.pth": small_weights.anomalyclip.read_bytes(),
    }
    content = {
        "files": {
            "clip-vit-l-14-336-openai": {
                "architecture": small_weights.architecture,
                "url": f"{file_server.url}/clip.pt",
                "sha256": hash_file(small_weights.clip).sha256,
            },
            "anomalyclip-visa": {
                "url": f"{file_server.url}/epoch_15.pth",
                "git_blob": hash_file(small_weights.anomalyclip).git_blob,
            },
        }
    }
    (tmp_path / "mirror.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(tmp_path / "mirror.yaml"))


def row(out: str, name: str) -> str:
    return next(line for line in out.splitlines() if line.split() and line.split()[0] == name)


def test_the_list_names_every_model_in_80_columns(medzsad) -> None:
    code, out, err = medzsad("models", "list")
    assert code == 0
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    for name, entry in entries().items():
        assert entry.method in row(out, name)
    assert "embedded" in row(out, "medzsad-mini")
    assert "fetch 934+43 MB" in row(out, "adaclip-all")
    assert "visa" in row(out, "anomalyclip-visa").split()[-1]
    assert "Saw every benchmark set" in out


@pytest.mark.parametrize("command", [["list"], ["info", "adaclip-all"], ["--help"]])
def test_lists_import_nothing_heavy(command) -> None:
    code = (
        f"import sys\nfrom medzsad.cli.main import run\ncode = run(['models', *{command!r}])\n"
        "heavy = {'torch', 'monai', 'numpy', 'open_clip', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(code or (3 if heavy else 0))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_json_says_the_same(medzsad) -> None:
    listed = json.loads(medzsad("models", "list", "--json")[1])
    assert [model["name"] for model in listed] == list(entries())
    by_name = {model["name"]: model for model in listed}
    assert by_name["medzsad-mini"]["ready"] is True
    assert by_name["adaclip-all"]["ready"] is False
    facts = json.loads(medzsad("models", "info", "adaclip-all", "--json")[1])
    assert facts["files"][1]["sha256"] == weight_files()["adaclip-all"].sha256
    assert facts["settings"] == {"image_size": 518}


def test_info_shows_parts_licences_hashes_and_training_sets(medzsad, cache_dir) -> None:
    out = medzsad("models", "info", "anomalyclip-mvtec")[1]
    for part in (
        "72adc786e031b49ea288ba5f815f0d38cf158708",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "https://raw.githubusercontent.com/zqhang/AnomalyCLIP/main/checkpoints/9_12_4_multiscale_visa/",
        "trained on  mvtec",
        "licence     MIT",
        "arXiv 2310.18961",
        "image_size 518",
        "CC BY-NC-SA",
        "medzsad models fetch anomalyclip-mvtec",
        str(cache_dir / "incoming" / "anomalyclip-mvtec.pth"),
    ):
        assert part in out, part
    assert "model card" in medzsad("models", "info", "medzsad-mini")[1]
    code, out, _ = medzsad("models", "info", "clip-vit-b-16-plus-240-laion400m")
    assert code == 0
    assert "8fb26589..." in out
    code, _, err = medzsad("models", "info", "nothing")
    assert code == 2
    assert "unknown model 'nothing'" in err


def test_info_of_the_embedded_model_tells_its_card_in_short(medzsad) -> None:
    _, printed, _ = medzsad("models", "info", "medzsad-mini")
    assert "\nDo not rely on it" in printed
    facts = json.loads(medzsad("models", "info", "medzsad-mini", "--json")[1])
    assert any(paragraph.startswith("Use it for a first look") for paragraph in facts["in_short"])


def test_fetch_list_info_remove(medzsad, served, file_server, cache_dir) -> None:
    assert medzsad("models", "fetch", "anomalyclip-visa")[:2] == (0, "anomalyclip-visa: ready\n")
    code, out, _ = medzsad("models", "fetch", "anomalyclip-visa", "headclip-from-anomalyclip-visa")
    assert (code, out.count("ready already")) == (0, 2)
    assert len(file_server.requests) == 2
    out = medzsad("models", "list")[1]
    assert row(out, "headclip-from-anomalyclip-visa").split()[2] == "ready"
    assert "fetch 23 MB" in row(out, "anomalyclip-mvtec")
    out = medzsad("models", "info", "anomalyclip-visa")[1]
    assert str(cache.slot("anomalyclip-visa")) in out
    assert "verified" in out
    code, out, _ = medzsad("models", "remove", "headclip-from-anomalyclip-visa")
    assert code == 0
    assert "kept anomalyclip-visa, also needed by anomalyclip-visa" in out
    code, out, _ = medzsad("models", "remove", "anomalyclip-visa")
    assert "removed anomalyclip-visa" in out
    assert "no longer ready: headclip-from-anomalyclip-visa" in out
    assert "freed" in out
    assert not cache.slot("anomalyclip-visa").exists()
    assert cache.is_ready("clip-vit-l-14-336-openai")


def test_no_name_is_fetched_if_one_is_unknown(medzsad, served, file_server) -> None:
    code, _, err = medzsad("models", "fetch", "anomalyclip-visa", "nothing")
    assert code == 2
    assert "unknown model 'nothing'" in err
    assert file_server.requests == []


def test_offline_says_the_steps_and_exits_with_2(medzsad, served, file_server) -> None:
    file_server.close()
    code, out, err = medzsad("models", "fetch", "anomalyclip-visa")
    assert code == 2
    assert out == ""
    assert err.startswith("error: anomalyclip-visa: ")
    assert err.splitlines()[-1].endswith("Run: medzsad models fetch anomalyclip-visa")
    assert "incoming" in err


def test_embedded_models_need_no_fetching_and_cannot_be_removed(medzsad) -> None:
    assert medzsad("models", "fetch", "medzsad-mini")[:2] == (0, "medzsad-mini: ready already\n")
    code, _, err = medzsad("models", "remove", "brightness")
    assert code == 2
    assert "part of medzsad itself" in err


def test_import_and_remove_a_model_of_ones_own(medzsad, served, small_weights) -> None:
    code, out, _ = medzsad("models", "import", small_weights.adaclip, "--as", "ours")
    assert code == 0
    assert "imported as adaclip weights (not verified, sha256" in out
    assert "used by: ours" in out
    assert "fetch" in row(medzsad("models", "list")[1], "ours")
    assert "not recorded" in medzsad("models", "info", "ours")[1]
    assert "forgotten: ours" in medzsad("models", "remove", "ours")[1]
    assert medzsad("models", "info", "ours")[0] == 2
    code, out, _ = medzsad("models", "import", small_weights.clip, "--as", "clip-vit-l-14-336-openai")
    assert code == 0
    assert "(verified)" in out
    code, _, err = medzsad("models", "import", small_weights.clip, "--as", "clip-vit-b-16-openai")
    assert code == 2
    assert "--unverified" in err


def test_a_bad_catalogue_is_one_line(medzsad, tmp_path, monkeypatch) -> None:
    (tmp_path / "bad.yaml").write_text("models: {x: {method: telepathy}}")
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(tmp_path / "bad.yaml"))
    code, out, err = medzsad("models", "list")
    assert (code, out) == (2, "")
    assert "bad.yaml: model 'x': unknown method 'telepathy'" in err
    assert len(err.splitlines()) == 1
