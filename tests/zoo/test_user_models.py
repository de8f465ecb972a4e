"""Models that the user imports and removes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from medzsad.errors import ModelNotReady
from medzsad.storage import cache
from medzsad.zoo.catalogue import entries, find_entry, weight_files
from medzsad.zoo.user_models import import_file, remove


@pytest.fixture(autouse=True)
def small_catalogue(cache_dir, small_weights, tmp_path, monkeypatch) -> None:
    """The package's catalogue with its largest CLIP made small, and no hashes."""
    content = {
        "files": {
            "clip-vit-l-14-336-openai": {"architecture": small_weights.architecture, "sha256": None},
            "anomalyclip-visa": {"git_blob": None},
        }
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(tmp_path / "small.yaml"))


def test_a_file_becomes_the_part_of_its_kind_that_the_name_stands_for(small_weights) -> None:
    done = import_file(small_weights.clip, "anomalyclip-visa")  # the model's CLIP, for the file is no prompts
    assert done.file.name == "clip-vit-l-14-336-openai"
    done = import_file(small_weights.anomalyclip, "headclip-from-anomalyclip-visa")
    assert done.file.name == "anomalyclip-visa"
    assert set(done.models) == {"anomalyclip-visa", "headclip-from-anomalyclip-visa"}
    assert not done.verified
    assert cache.is_ready("clip-vit-l-14-336-openai")
    assert cache.is_ready("anomalyclip-visa")
    assert not cache.own_catalogue().exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "anomalyclip-visa",
            "recognised as 'adaclip', but anomalyclip-visa is made of 'anomalyclip' and 'clip'",
        ),
        ("medzsad-mini", "medzsad-mini needs no weight files"),
        ("clip-vit-b-16-openai", "is made of 'clip'"),
        ("../../etc/x", "no usable name"),
    ],
)
def test_a_file_of_no_kind_that_the_name_needs(small_weights, name, message, cache_dir) -> None:
    with pytest.raises(ModelNotReady, match=message):
        import_file(small_weights.adaclip, name)
    assert not cache_dir.exists()


def test_a_hash_that_differs_is_refused_unless_accepted_and_then_recorded(small_weights) -> None:
    with pytest.raises(ModelNotReady, match=r"expected sha256 33e8d3db.*`unverified`") as caught:
        import_file(small_weights.adaclip, "adaclip-all")
    assert "\n" not in str(caught.value)
    assert not cache.is_ready("adaclip-all")
    done = import_file(small_weights.adaclip, "adaclip-all", unverified=True)
    assert not done.verified
    assert cache.read_facts("adaclip-all")["verified"] is False
    assert cache.read_facts("adaclip-all")["source_sha256"] == done.sha256


def test_a_new_name_for_an_adapter_becomes_a_model(small_weights) -> None:
    done = import_file(small_weights.adaclip, "our-adaclip")
    assert done.models == ["our-adaclip"]
    entry = find_entry("our-adaclip")
    assert (entry.method, entry.clip, entry.adapter, entry.origin) == (
        "adaclip",
        "clip-vit-l-14-336-openai",
        "our-adaclip",
        "imported",
    )
    import_file(small_weights.adaclip, "our-adaclip")  # again, e.g. a newer file
    import_file(small_weights.anomalyclip, "our-prompts", backbone="clip-vit-b-16-openai")
    assert find_entry("our-prompts").method == "anomalyclip"
    assert find_entry("our-prompts").clip == "clip-vit-b-16-openai"
    assert "our-adaclip" in entries()


def test_a_checkpoint_of_ours_becomes_a_model_of_its_method() -> None:
    import_file(find_entry("medzsad-mini").path, "our-mini")
    entry = find_entry("our-mini")
    assert (entry.method, entry.clip, entry.adapter) == ("mini", None, "our-mini")
    from medzsad.zoo.loading import load_detector

    detector = load_detector("our-mini", device="cpu", precision="fp32")
    assert detector.method == "mini"
    assert detector.name == "our-mini"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            '{"method": "headclip", "settings": {"backbone": "ViT-B-32", "clip_weights": "laion2b_e16"}}',
            "ViT-B-32",
        ),
        ('{"method": "telepathy", "settings": {}}', "which this version lacks"),
        ("not JSON", "damaged metadata"),
    ],
)
def test_a_checkpoint_that_could_not_be_loaded_is_not_registered(tmp_path, header, message) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"medzsad": header})
    with pytest.raises(ModelNotReady, match=message):
        import_file(path, "ours")
    assert not cache.own_catalogue().exists()
    assert not cache.is_ready("ours")


def test_new_names_are_refused_where_something_is_missing(small_weights) -> None:
    for options, message in (
        ({"backbone": "nowhere"}, "'nowhere' is no CLIP of the catalogue; use one of clip-vit-l"),
        ({"backbone": "adaclip-all"}, "no CLIP of the catalogue"),
        ({"architecture": "ViT-B-32"}, "`architecture` is for CLIP weights"),
    ):
        with pytest.raises(ModelNotReady, match=message):
            import_file(small_weights.adaclip, "ours", **options)
    with pytest.raises(ModelNotReady, match="no model of open_clip has image tower 12 x 128"):
        import_file(small_weights.clip, "our-clip")
    with pytest.raises(ModelNotReady, match="not a ViT-B-32"):
        import_file(small_weights.clip, "our-clip", architecture="ViT-B-32")
    with pytest.raises(ModelNotReady, match="for new names"):
        import_file(small_weights.clip, "clip-vit-l-14-336-openai", architecture="ViT-B-32")
    assert not cache.own_catalogue().exists()


@pytest.fixture
def vit_s(tmp_path: Path) -> Path:
    """Weights of open_clip's smallest ViT, one layer's worth of bytes shared by all."""
    import open_clip

    config = open_clip.get_model_config("ViT-S-32-alt")
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in open_clip.CLIP(**config).state_dict().items()}
    state = {name: torch.zeros(()).half().expand(shape) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "vit_s.pt")
    return tmp_path / "vit_s.pt"


def test_a_new_clip_is_guessed_and_becomes_two_models(vit_s) -> None:
    done = import_file(vit_s, "our-vit")
    assert done.models == ["winclip-our-vit", "clip-our-vit"]
    file = weight_files()["our-vit"]
    assert file.architecture == "ViT-S-32-alt"
    assert file.quick_gelu is False
    assert find_entry("winclip-our-vit").settings == {"image_size": 224}
    assert find_entry("clip-our-vit").method == "clip"


def test_removing_keeps_what_other_ready_models_need_and_says_so(small_weights) -> None:
    import_file(small_weights.clip, "clip-vit-l-14-336-openai")
    import_file(small_weights.anomalyclip, "anomalyclip-visa")
    done = remove("headclip-from-anomalyclip-visa")
    assert done.files == []
    assert done.freed == 0
    assert "anomalyclip-visa" in done.kept["anomalyclip-visa"]
    assert "winclip-vit-l-14-336" in done.kept["clip-vit-l-14-336-openai"]
    done = remove("anomalyclip-visa")  # also a file's own name
    assert done.files == ["anomalyclip-visa"]
    assert done.freed > 0
    assert done.broken == ["headclip-from-anomalyclip-visa"]
    assert "clip-vit-l-14-336-openai" in done.kept
    done = remove("clip-vit-l-14-336-openai")
    assert done.files == ["clip-vit-l-14-336-openai"]
    assert set(done.broken) == {"winclip-vit-l-14-336", "clip-vit-l-14-336"}
    assert remove("clip-vit-l-14-336-openai").freed == 0


def test_what_only_one_model_needs_goes_with_it(small_weights, cache_dir) -> None:
    import_file(small_weights.adaclip, "adaclip-all", unverified=True)
    done = remove("adaclip-all")
    assert done.files == ["adaclip-all"]
    assert not cache.slot("adaclip-all").exists()


def test_imported_models_are_forgotten_with_their_files(small_weights, vit_s) -> None:
    import_file(small_weights.adaclip, "ours")
    done = remove("ours")
    assert done.unregistered == ["ours"]
    assert "ours" not in entries()
    assert "ours" not in weight_files()
    import_file(vit_s, "our-vit")
    assert remove("winclip-our-vit").unregistered == ["winclip-our-vit"]
    assert cache.is_ready("our-vit")  # plain CLIP still needs it
    done = remove("clip-our-vit")
    assert done.files == ["our-vit"]
    assert "our-vit" not in weight_files()


def test_a_backbone_that_imported_adapters_sit_on_stays(small_weights, vit_s) -> None:
    import_file(vit_s, "our-vit")
    import_file(small_weights.adaclip, "ours", backbone="our-vit")
    with pytest.raises(ModelNotReady, match="our-vit: ours need it as backbone; remove them first"):
        remove("our-vit")
    remove("ours")
    assert remove("our-vit").unregistered == ["winclip-our-vit", "clip-our-vit"]
    assert yaml.safe_load(cache.own_catalogue().read_text()) == {"files": {}, "models": {}}


def test_what_cannot_be_removed() -> None:
    with pytest.raises(ModelNotReady, match="part of medzsad itself"):
        remove("medzsad-mini")
    with pytest.raises(ModelNotReady, match="unknown model 'nothing'"):
        remove("nothing")
