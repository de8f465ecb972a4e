"""The catalogue that ships, and catalogues of the user's own merged over it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch

from medzsad.detectors.registry import METHODS
from medzsad.errors import ModelNotReady
from medzsad.zoo.catalogue import (
    WITHOUT_CLIP,
    WeightFile,
    catalogue,
    entries,
    find_clip,
    find_entry,
    nearest_names,
    unknown_model,
    users_of,
    weight_files,
)
from medzsad.zoo.loading import clip_weights_of, load_detector

pytestmark = pytest.mark.usefixtures("cache_dir")


def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hospital.yaml"
    path.write_text(text)
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(path))
    return path


def test_every_promised_model_is_there_and_every_method_has_one() -> None:
    known = entries()
    assert {
        "medzsad-mini",
        "winclip-vit-l-14-336",
        "winclip-vit-b-16",
        "winclip-vit-b-32",
        "winclip-vit-b-16-plus-240",
        "clip-vit-l-14-336",
        "clip-vit-b-16",
        "clip-vit-b-32",
        "winclip-tinyclip-vit-40m-32",
        "clip-tinyclip-vit-40m-32",
        "anomalyclip-visa",
        "anomalyclip-mvtec",
        "headclip-from-anomalyclip-visa",
        "headclip-from-anomalyclip-mvtec",
        "adaclip-mvtec-colondb",
        "adaclip-visa-clinicdb",
        "adaclip-all",
        "brightness",
        "darkness",
        "asymmetry",
    } <= set(known)
    # Profiles of normal images, and cohorts that score themselves, are made, not fetched.
    assert {entry.method for entry in known.values()} == set(METHODS) - {"mutual", "normals"}


def test_every_file_is_described_and_used() -> None:
    known = catalogue()
    for file in known.files.values():
        assert file.url.startswith("https://"), file.name
        assert file.sha256 or file.git_blob, file.name
        assert file.megabytes > 0
        assert file.licence in ("MIT", "Apache-2.0")
        assert file.source.startswith("https://")
        assert users_of(file.name, known.models) or file.kind == "features", file.name
    for entry in known.models.values():
        assert entry.title
        assert entry.licence != "unknown"
        assert (entry.clip is None) == (entry.method in WITHOUT_CLIP)
        assert (entry.adapter is not None) == (entry.method in ("anomalyclip", "headclip", "adaclip"))
        if entry.adapter is not None:
            assert entry.seen, f"{entry.name} must say what it was trained on"
            assert known.files[entry.adapter].kind in (entry.method, "anomalyclip")
    mini = known.models["medzsad-mini"]
    assert mini.path.is_file()
    assert (mini.path.parent / mini.card).is_file()


def test_what_was_trained_on_what_is_not_swapped() -> None:
    # The published folder that ends in _visa holds what was trained on MVTec AD, to be tested on VisA.
    files, models = weight_files(), entries()
    assert "/9_12_4_multiscale_visa/" in files["anomalyclip-mvtec"].url
    assert files["anomalyclip-mvtec"].git_blob == "72adc786e031b49ea288ba5f815f0d38cf158708"
    assert "/9_12_4_multiscale/" in files["anomalyclip-visa"].url
    assert files["anomalyclip-visa"].git_blob == "c90f1d9d92d158b436a8fc193f984d4cec8b1fc8"
    for trained_on in ("visa", "mvtec"):
        for name in (f"anomalyclip-{trained_on}", f"headclip-from-anomalyclip-{trained_on}"):
            assert models[name].adapter == f"anomalyclip-{trained_on}"
            assert models[name].seen == (trained_on,)
    assert "saw every benchmark set" in models["adaclip-all"].note.lower()


def test_openai_and_open_clip_say_the_same_of_the_clip_files() -> None:
    from open_clip.pretrained import get_pretrained_cfg

    for file in weight_files().values():
        if file.kind == "clip" and file.tag is not None:  # TinyCLIP is unknown to open_clip
            published = get_pretrained_cfg(file.architecture, file.tag)
            assert Path(published["url"]).name == file.original_name
            assert file.sha256 in published["url"]
            assert bool(published.get("quick_gelu", False)) == file.quick_gelu


def test_settings_are_known_to_the_methods() -> None:
    from open_clip import get_model_config

    from medzsad.detectors.adaclip.settings import AdaCLIPSettings
    from medzsad.detectors.headclip.settings import HeadCLIPSettings

    files = weight_files()
    for entry in entries().values():
        if entry.method in ("headclip", "anomalyclip"):
            assert HeadCLIPSettings.from_dict(entry.settings).image_size == 518
        elif entry.method == "adaclip":
            assert AdaCLIPSettings.from_dict(entry.settings).image_size == 518
        elif entry.method in ("winclip", "clip"):
            named = files[entry.clip].architecture
            config = get_model_config(named) if isinstance(named, str) else named
            assert entry.settings == {"image_size": config["vision_cfg"]["image_size"]}


def test_reading_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom medzsad.zoo import catalogue, fetch, download, user_models\ncatalogue.entries()\n"
        "sys.exit(bool({'torch', 'numpy', 'open_clip', 'safetensors'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_says_the_nearest_one() -> None:
    with pytest.raises(ModelNotReady, match=r"'medzsad-maxi'.*mean medzsad-mini\?.*models list"):
        find_entry("medzsad-maxi")


def test_a_users_catalogue_changes_fields_adds_models_and_is_read_anew(monkeypatch, tmp_path) -> None:
    before = weight_files()["adaclip-all"]
    use(
        monkeypatch,
        tmp_path,
        "files:\n"
        "  adaclip-all: {url: 'https://mirror.example/pretrained_all.pth'}\n"
        "  anomalyclip-visa: {sha256: '0123456789abcdef'}\n"
        "  ours: {kind: adaclip}\n"
        "models:\n"
        "  ours: {method: adaclip, clip: clip-vit-l-14-336-openai, adapter: ours, seen: [kvasir]}\n",
    )
    files, models = weight_files(), entries()
    assert files["adaclip-all"].url == "https://mirror.example/pretrained_all.pth"
    assert files["adaclip-all"].sha256 == before.sha256
    assert files["anomalyclip-visa"].git_blob is None  # a new hash is the only one
    assert models["ours"].origin == "user"
    assert models["ours"].seen == ("kvasir",)
    assert models["adaclip-all"].origin == "package"
    monkeypatch.delenv("MEDZSAD_CATALOGUE")
    assert "ours" not in entries()


BAD = [
    ("files: [1, 2]", "'files' must be a map"),
    ("models: {x: 3}", "model 'x' must be a map"),
    ("weights: {}", "two maps"),
    ("- a\n- b", "two maps"),
    (
        "files: {x: {kind: adaclip, sha: abc}}",
        "unknown key 'sha' (did you mean 'sha256'?); allowed: ",
    ),
    ("files: {x: {url: 'https://a/b'}}", "'kind' is missing"),
    ("files: {x: {kind: resnet}}", "unknown kind 'resnet'"),
    ("files: {x: {kind: clip}}", "architecture"),
    ("files: {x: {kind: adaclip, url: 'ftp://a/b'}}", "https://"),
    ("files: {x: {kind: adaclip, sha256: 12345678}}", "sha256: expected a text, got 12345678"),
    ("files: {x: {kind: adaclip, sha256: ABCDEF012345}}", "lower case"),
    ("files: {x: {kind: adaclip, git_blob: abcdef}}", "git_blob"),
    ("files: {../x: {kind: adaclip}}", "no usable name"),
    ("models: {x.safetensors: {method: mini}}", "no usable name"),
    ("models: {x: {method: telepathy}}", "unknown method 'telepathy'"),
    ("models: {x: {method: winclip, clip: nowhere}}", "its clip 'nowhere' is no entry"),
    ("models: {x: {method: winclip, clip: adaclip-all}}", "of kind 'adaclip'"),
    ("models: {x: {method: adaclip, clip: clip-vit-b-16-openai, adapter: clip-vit-b-16-openai}}", "of kind"),
    ("models: {x: {method: winclip}}", "needs a clip"),
    ("models: {x: {method: mini, seen: visa}}", "seen: expected a list of values, got 'visa'"),
    ("models: {x: {method: mini, checkpoint: a, adapter: adaclip-all}}", "embedded"),
    ("models: {x: {title: nameless}}", "'method' is missing"),
    ("models: {x: {method: mini, 3: 4}}", "unknown key '3'"),
    ("models: {x: {method: mini, name: y}}", "unknown key 'name'"),
    (
        "files: {x: {kind: adaclip, megabytes: true}}",
        "megabytes: expected a whole number or a number, got True",
    ),
    ("files: {x: [", "not valid YAML"),
]


@pytest.mark.parametrize(("text", "mention"), BAD)
def test_a_bad_catalogue_gives_one_clear_line(monkeypatch, tmp_path, text, mention) -> None:
    path = use(monkeypatch, tmp_path, text)
    with pytest.raises(ModelNotReady) as caught:
        catalogue()
    message = str(caught.value)
    assert message.startswith(str(path))
    assert mention in message
    assert "\n" not in message


def test_a_catalogue_that_is_not_there(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ModelNotReady, match=r"nowhere\.yaml: no such file"):
        entries()


def test_an_empty_catalogue_changes_nothing(monkeypatch, tmp_path) -> None:
    before = catalogue()
    use(monkeypatch, tmp_path, "# nothing yet\nfiles:\nmodels:\n")
    assert catalogue() == before


def test_a_clip_is_found_by_architecture_and_tag_or_name() -> None:
    config = {"embed_dim": 8}
    known = {
        "a": WeightFile("a", "clip", architecture="ViT-B-32", tag="openai"),
        "b": WeightFile("b", "clip", architecture=config),
        "c": WeightFile("c", "adaclip"),
    }
    assert find_clip(known, "ViT-B-32", "openai").name == "a"
    assert find_clip(known, dict(config), "b").name == "b"
    assert find_clip(known, "ViT-B-32", "laion2b_e16") is None
    assert find_clip(known, "ViT-B-16", "openai") is None
    assert find_clip(known, config, None) is None


def test_names_of_originals_and_of_files_put_by_hand() -> None:
    file = WeightFile("a", "adaclip", url="https://example.org/x/my%20weights.pth?download=1")
    assert file.original_name == "my weights.pth"
    assert file.incoming_name == "a.pth"
    assert WeightFile("a", "adaclip").original_name is None
    assert "unverified" in WeightFile("a", "adaclip").hash_text
    assert WeightFile("a", "clip", sha256="699c4b84").hash_text == "sha256 699c4b84..."


def test_the_documentation_lists_exactly_these_models_with_these_sizes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line[:3] == "| `"
    ]
    table = {row[0].strip("`"): row for row in rows if len(row) == 5}
    known = catalogue()
    assert list(table) == list(known.models)
    for name, entry in known.models.items():
        _, method, needs, _, licence = table[name]
        assert (method, licence) == (entry.method, entry.licence)
        sizes = " + ".join(f"{known.files[part].megabytes:g}" for part in entry.parts)
        assert needs == (sizes or ("embedded" if entry.checkpoint else "nothing"))


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("anomalyclip", ["anomalyclip-visa", "anomalyclip-mvtec", "headclip-from-anomalyclip-visa"]),
        ("anomalyclip-vsia", ["anomalyclip-visa"]),
        ("winclip", ["winclip-vit-l-14-336", "winclip-vit-b-16-plus-240", "winclip-vit-b-16"]),
        ("mini", ["medzsad-mini"]),
        ("medszad-mini", ["medzsad-mini"]),
        ("brigthness", ["brightness"]),
        ("xyzzy", []),
    ],
)
def test_nearest_names(wanted: str, near: list[str]) -> None:
    assert nearest_names(wanted, entries())[: max(1, len(near))] == near
    assert len(nearest_names(wanted, entries())) <= 3


def test_a_method_without_a_model_is_explained() -> None:
    line = unknown_model("HeadCLIP", entries())
    assert "authors' repository" in line
    assert "headclip-from-anomalyclip-visa" in line
    assert "medzsad models list" in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["runs/headclip", "./x", "~/runs/a", "a.pth", "C:\\runs\\a"])
def test_what_looks_like_a_path_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(ModelNotReady, match="no such file or folder"):
        load_detector(name)


@pytest.mark.parametrize("name", ["medzsad-mini", "brightness"])
def test_clip_weights_for_a_model_without_clip_are_refused(name: str) -> None:
    with pytest.raises(ModelNotReady, match="no CLIP inside"):
        load_detector(name, clip_weights="openai")


def test_of_several_models_those_with_a_clip_get_the_weights() -> None:
    given = clip_weights_of(["medzsad-mini", "anomalyclip-visa", "runs/a"], "openai")
    assert given == {"medzsad-mini": None, "anomalyclip-visa": "openai", "runs/a": "openai"}
    assert clip_weights_of(["medzsad-mini"], "openai") == {"medzsad-mini": "openai"}


def test_tinyclip_is_as_large_as_its_authors_say() -> None:
    file = weight_files()["clip-tinyclip-vit-40m-32-laion400m"]
    with torch.device("meta"):
        clip = open_clip.CLIP(**file.architecture)
    image, text = (sum(p.numel() for p in part.parameters()) for part in (clip.visual, clip.transformer))
    assert (round(image / 1e6), round(text / 1e6)) == (40, 19)
    stored = 2 * sum(tensor.numel() for tensor in clip.state_dict().values())  # in half precision
    assert abs(stored / 1e6 - file.megabytes) < 1


def test_backbones_of_features_are_no_parts_of_models(monkeypatch, tmp_path) -> None:
    use(
        monkeypatch,
        tmp_path,
        "models: {odd: {method: adaclip, clip: clip-vit-b-16-openai, adapter: dinov2-s14}}",
    )
    with pytest.raises(ModelNotReady, match="its adapter 'dinov2-s14' is of kind 'features'"):
        catalogue()
