"""From names to detectors: parts in the cache, parts given instead, and parts that are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml

from medzsad.detectors.checkpoint import save_checkpoint
from medzsad.detectors.features import vit
from medzsad.detectors.headclip.model import HeadCLIP, HeadCLIPSettings
from medzsad.errors import BadInput, ModelNotReady
from medzsad.storage import cache
from medzsad.training.normals import fit_normals
from medzsad.zoo.catalogue import find_entry
from medzsad.zoo.loading import load_detector, load_features
from medzsad.zoo.user_models import import_file

BACKBONE = "clip-vit-l-14-336-openai"


@pytest.fixture(autouse=True)
def small_catalogue(cache_dir, small_weights, tmp_path, monkeypatch) -> None:
    """The package's catalogue with small models in the place of the large ones."""
    small = {"settings": {"image_size": 70}}
    content = {
        "files": {
            BACKBONE: {"architecture": small_weights.architecture, "sha256": None},
            "anomalyclip-visa": {"git_blob": None},
            "adaclip-all": {"sha256": None},
        },
        "models": {n: small for n in ("anomalyclip-visa", "adaclip-all", "headclip-from-anomalyclip-visa")}
        | {n: {"settings": {"image_size": 56}} for n in ("clip-vit-l-14-336", "winclip-vit-l-14-336")},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(tmp_path / "small.yaml"))


@pytest.fixture
def ready(small_weights) -> None:
    import_file(small_weights.clip, BACKBONE)
    import_file(small_weights.anomalyclip, "anomalyclip-visa")
    import_file(small_weights.adaclip, "adaclip-all")


def load(name: str | Path, **options):
    return load_detector(name, device="cpu", precision="fp32", **options)


def images() -> torch.Tensor:
    return torch.rand(2, 3, 70, 70, generator=torch.Generator().manual_seed(2))


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one(images()), other(images()), strict=True))


def test_what_is_missing_and_how_to_get_it_is_said_in_one_line(cache_dir, small_weights) -> None:
    with pytest.raises(ModelNotReady) as caught:
        load("anomalyclip-visa")
    message = str(caught.value)
    assert f"{BACKBONE} (934 MB) and anomalyclip-visa (23 MB) missing" in message
    assert "run: medzsad models fetch anomalyclip-visa" in message
    assert "without a network" in message
    assert "\n" not in message
    import_file(small_weights.clip, BACKBONE)
    with pytest.raises(ModelNotReady, match=r"not ready, anomalyclip-visa \(23 MB\) missing"):
        load("anomalyclip-visa")


def test_a_damaged_cache_is_missing_not_a_crash(ready) -> None:
    path = cache.slot("anomalyclip-visa")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelNotReady, match="not ready, anomalyclip-visa"):
        load("anomalyclip-visa")


def test_a_detector_is_put_together_from_the_cache(ready, small_weights) -> None:
    detector = load("headclip-from-anomalyclip-visa")
    assert detector.name == "headclip-from-anomalyclip-visa"
    assert detector.method == "headclip"
    assert detector.config.quick_gelu is True  # of OpenAI's weights
    assert detector.config.clip_weights == "openai"
    assert detector.image_size == 70
    assert detector.seen == ("visa",)
    assert not any(parameter.requires_grad for parameter in detector.parameters())
    config = HeadCLIPSettings(backbone=small_weights.architecture, image_size=70, quick_gelu=True)
    original = HeadCLIP.from_anomalyclip(small_weights.anomalyclip, config, clip_weights=small_weights.clip)
    assert same(detector, original.eval())


def test_adaclip_keeps_plain_gelu_on_the_same_weights(ready) -> None:
    assert load("adaclip-all").config.quick_gelu is False


def test_files_given_replace_those_of_the_cache(ready, small_weights, tmp_path) -> None:
    from_cache = load("anomalyclip-visa")
    given = load("anomalyclip-visa", adapter=small_weights.anomalyclip)
    assert same(from_cache, given)
    assert given.seen == ()  # what the catalogue says is of another file
    cache.remove("anomalyclip-visa")
    assert same(from_cache, load("anomalyclip-visa", adapter=small_weights.anomalyclip))
    changed = torch.load(small_weights.anomalyclip, weights_only=True)
    changed["prompt_learner"]["ctx_neg"] += 1
    torch.save(changed, tmp_path / "other.pth")
    assert not same(from_cache, load("anomalyclip-visa", adapter=tmp_path / "other.pth"))
    with pytest.raises(ModelNotReady, match=r"missing\.pth"):
        load("anomalyclip-visa", adapter=tmp_path / "missing.pth")
    # The small CLIP's file does not say that it is QuickGELU's, and what the catalogue says is of another.
    cache.remove(BACKBONE)
    given = load("clip-vit-l-14-336", clip_weights=small_weights.clip)
    assert given.config.quick_gelu is False


def test_weights_can_be_given_by_their_name_in_the_zoo(ready) -> None:
    assert same(load("clip-vit-l-14-336"), load("clip-vit-l-14-336", clip_weights=BACKBONE))


def test_an_adapter_of_the_wrong_kind_is_one_clear_line(ready, small_weights) -> None:
    with pytest.raises(ModelNotReady, match=r"epoch_15\.pth: .*AdaCLIP") as caught:
        load("adaclip-all", adapter=small_weights.anomalyclip)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelNotReady, match=r"epoch_15\.pth"):
        load("medzsad-mini", adapter=small_weights.anomalyclip)


@pytest.fixture
def trained(ready, small_weights, tmp_path) -> Path:
    """A checkpoint of a HeadCLIP that was trained on weights it knows by their tag."""
    config = HeadCLIPSettings(backbone=small_weights.architecture, clip_weights="openai", image_size=70)
    detector = HeadCLIP.build(config, clip_weights=small_weights.clip)
    save_checkpoint(detector.to_checkpoint(), tmp_path / "trained.safetensors")
    return tmp_path / "trained.safetensors"


def test_a_checkpoint_finds_the_fetched_weights_that_it_names(trained, small_weights) -> None:
    assert same(load(trained), load(trained, clip_weights=small_weights.clip))
    replaced = load("headclip-from-anomalyclip-visa", adapter=trained)
    assert same(replaced, load(trained))
    with pytest.raises(ModelNotReady, match="holds a 'headclip' detector, but anomalyclip-visa"):
        load("anomalyclip-visa", adapter=trained)
    import_file(trained, "ours")
    assert find_entry("ours").clip == BACKBONE
    assert same(load("ours"), load(trained))


def test_a_checkpoint_downloads_nothing_by_itself(tmp_path, monkeypatch, small_weights) -> None:
    from medzsad.detectors.clip import pretrained

    config = HeadCLIPSettings(backbone=small_weights.architecture, clip_weights="openai", image_size=70)
    stored = HeadCLIP.build(config, clip_weights=small_weights.clip).to_checkpoint()
    monkeypatch.setattr(pretrained, "_cached", lambda config: None)
    monkeypatch.setattr(pretrained, "_download", lambda *_: pytest.fail("downloaded"))
    monkeypatch.delenv("MEDZSAD_CATALOGUE")
    for backbone, tag, way in (
        ("ViT-L-14-336", "openai", f"medzsad models fetch {BACKBONE}"),
        ("ViT-B-32", "laion2b_e16", "`clip_weights` laion2b_e16"),
    ):
        stored.settings.update(backbone=backbone, clip_weights=tag)
        save_checkpoint(stored, tmp_path / "far.safetensors")
        with pytest.raises(ModelNotReady, match=f"far.safetensors.*not on this machine.*{way}"):
            load(tmp_path / "far.safetensors")


def test_the_organ_goes_to_methods_whose_texts_name_it(ready) -> None:
    plain, brain = load("clip-vit-l-14-336"), load("clip-vit-l-14-336", organ="brain")
    assert not same(plain, brain)
    assert not same(load("adaclip-all"), load("adaclip-all", organ="brain"))
    with pytest.raises(BadInput, match="unknown organ 'tail'"):
        load("clip-vit-l-14-336", organ="tail")


@pytest.mark.parametrize("name", ["medzsad-mini", "brightness", "anomalyclip-visa"])
def test_an_organ_is_refused_by_methods_that_know_none(name) -> None:
    with pytest.raises(ModelNotReady, match="object-agnostic"):
        load(name, organ="brain")


TINY_DINO = {"model_name": "vit_small_patch14_dinov2", "embed_dim": 48, "depth": 4, "num_heads": 3}


@pytest.fixture
def dino(monkeypatch, tmp_path) -> Path:
    """Weights of a small DINOv2 in its authors' layout, which the catalogue takes for the real ones."""
    monkeypatch.setitem(vit.ARCHITECTURES, "dinov2-s14", TINY_DINO)
    torch.manual_seed(6)
    network = timm.create_model(**TINY_DINO, pretrained=False, num_classes=0, img_size=56)
    torch.save({**network.state_dict(), "mask_token": torch.zeros(1, 48)}, tmp_path / "dinov2_small.pth")
    return tmp_path / "dinov2_small.pth"


def test_features_in_the_package_are_found_by_name() -> None:
    assert load_features("lite0").name == "lite0"
    assert load_features("mini", image_size=96).image_size == 96


def test_missing_features_say_how_to_get_them() -> None:
    with pytest.raises(ModelNotReady, match="not on this machine; run: medzsad models fetch dinov2-s14"):
        load_features("dinov2-s14")
    with pytest.raises(ModelNotReady, match="medzsad models fetch clip-vit-l-14-336-openai"):
        load_features("winclip-vit-l-14-336")


@pytest.mark.parametrize("name", ["dino", "clip:nothing", "medzsad-mini", "adaclip-nothing"])
def test_unknown_features_are_refused(name) -> None:
    with pytest.raises(ModelNotReady, match=rf"unknown features '{name}'; use lite0, mini, dinov2-s14"):
        load_features(name)


def test_dinov2_is_imported_and_found(dino) -> None:
    import_file(dino, "dinov2-s14", unverified=True)
    found, given = load_features("dinov2-s14", image_size=56), load_features("dinov2-s14", weights=dino)
    assert found.digest == given.digest
    assert given.image_size == 448


def test_dinov2_under_a_new_name_is_refused(dino) -> None:
    with pytest.raises(ModelNotReady, match="DINOv2's weights; import them as dinov2-s14 or dinov2-b14"):
        import_file(dino, "my-features")


@pytest.mark.parametrize("name", [BACKBONE, "clip:anomalyclip-visa"])
def test_any_clip_of_the_zoo_gives_features(ready, name) -> None:
    features = load_features(name)
    assert (features.name, features.image_size) == (name, 56)
    assert [f.shape[1:] for f in features(images()[..., :56, :56])] == [(128, 4, 4)] * 4


@pytest.fixture
def profile(dino, tmp_path) -> Path:
    import_file(dino, "dinov2-s14", unverified=True)
    draw = np.random.default_rng(0)
    normals = [draw.uniform(0, 255, (64, 64)).astype(np.uint8) for _ in range(2)]
    detector = fit_normals(normals, features="dinov2-s14", image_size=56, device="cpu", modality="xray")
    save_checkpoint(detector.to_checkpoint(), tmp_path / "profile.safetensors")
    return tmp_path / "profile.safetensors"


def test_a_profile_finds_its_features_and_needs_the_same_weights(profile, dino, tmp_path) -> None:
    first, second = load(profile), load(profile, clip_weights=dino)
    assert first.features.name == "dinov2-s14"
    assert same(first, second)
    state = torch.load(dino, weights_only=True)
    torch.save({**state, "cls_token": state["cls_token"] + 1}, tmp_path / "newer.pth")
    with pytest.raises(ModelNotReady, match=r"profile.safetensors: made with other weights of dinov2-s14"):
        load(profile, clip_weights=tmp_path / "newer.pth")
    cache.remove("dinov2-s14")
    with pytest.raises(ModelNotReady, match=r"profile.safetensors: features 'dinov2-s14'.*models fetch dino"):
        load(profile)
    with pytest.raises(ModelNotReady, match="no such file"):
        load(profile, clip_weights=tmp_path / "none.pth")
    assert same(first, load(profile, clip_weights=dino))
