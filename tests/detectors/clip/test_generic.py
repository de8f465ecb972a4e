"""CLIPs with timm image towers, against open_clip's own forward pass on small random towers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from medzsad.detectors.checkpoint import save_checkpoint
from medzsad.detectors.clip.generic import GenericCLIP, is_generic
from medzsad.detectors.zero_shot.plain_clip import PlainCLIP
from medzsad.detectors.zero_shot.settings import PlainCLIPSettings, WinCLIPSettings
from medzsad.detectors.zero_shot.winclip import WinCLIP
from medzsad.errors import ModelNotReady
from medzsad.zoo.loading import load_detector

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
TOWERS = {  # the smallest of timm, 10x10 patches, with the poolings of BiomedCLIP, SigLIP and others
    "token": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
    "mlp": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "mlp", "image_size": 160},
    "avg": {"timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear", "image_size": 160},
    "map": {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "linear", "image_size": 160},
}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
Folder = Callable[..., tuple[Path, open_clip.CustomTextCLIP]]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Writes a model as hubs hold it; gives the folder and open_clip's own model."""

    def write(tower: str, **changes: Any) -> tuple[Path, open_clip.CustomTextCLIP]:
        config = {"embed_dim": 32, "vision_cfg": TOWERS[tower], "text_cfg": TEXT} | changes
        torch.manual_seed(0)
        model = open_clip.CustomTextCLIP(**config).eval()
        save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
        header = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(header), encoding="utf-8")
        return tmp_path, model

    return write


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(2))


def test_names_of_generic_models() -> None:
    assert is_generic("hf-hub:owner/name")
    assert is_generic("local-dir:folder")
    assert not is_generic("ViT-B-16")
    assert not is_generic({"embed_dim": 32})


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_features_are_those_of_open_clip(folder: Folder, inputs: Tensor, tower: str) -> None:
    path, model = folder(tower)
    state = torch.random.get_rng_state()
    clip = GenericCLIP.build(f"local-dir:{path}", text=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    tokens = clip.run_blocks(clip.embed(inputs)).tokens
    torch.testing.assert_close(clip.class_feature(tokens), model.encode_image(inputs), atol=1e-5, rtol=1e-4)
    texts = ["a healthy brain", "a brain with a tumour"]
    expected = model.encode_text(open_clip.tokenize(texts))
    torch.testing.assert_close(clip.encode_texts(texts), expected, atol=1e-5, rtol=1e-4)
    assert (clip.mean, clip.std, clip.patch_size, clip.grid(inputs)) == (MEAN, STD, (16, 16), (10, 10))


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_a_patch_is_projected_as_if_it_were_the_only_one(folder: Folder, inputs: Tensor, tower: str) -> None:
    clip = GenericCLIP.build(f"local-dir:{folder(tower)[0]}")
    tokens = clip.run_blocks(clip.embed(inputs)).tokens
    projected = clip.project(tokens)
    assert projected.shape == (2, tokens.shape[1], 32)
    patch = tokens[:, 7:8]
    if tower in ("token", "mlp"):  # the pooled token is the class token
        torch.testing.assert_close(projected[:, 0], clip.class_feature(tokens))
        alone = clip.class_feature(patch)
    elif tower == "avg":  # the mean leaves the class token out
        alone = clip.class_feature(torch.cat([tokens[:, :1], patch], 1))
    else:  # attention over one token gives that token's value
        alone = clip.class_feature(patch)
    torch.testing.assert_close(projected[:, 7], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tower", ["token", "map"])
def test_plain_clip_predicts_with_it(folder: Folder, tower: str, tmp_path: Path) -> None:
    path, model = folder(tower)
    detector = PlainCLIP.build(PlainCLIPSettings(backbone=f"local-dir:{path}", ensemble="two"))
    assert (detector.config.clip_weights, detector.image_size, detector.clip.text) == (None, 160, None)
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(3))
    prediction = detector(images)
    assert prediction.anomaly_map.shape == (2, 160, 160)
    assert prediction.anomaly_map.std() > 0
    with torch.no_grad():
        normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        texts = open_clip.tokenize(["a photo of a normal object", "a photo of an anomalous object"])
        image, text = (
            F.normalize(f, dim=-1) for f in (model.encode_image(normalised), model.encode_text(texts))
        )
    expected = (100 * image @ text.T).softmax(-1)[:, 1]
    torch.testing.assert_close(prediction.image_probability, expected, atol=1e-4, rtol=1e-4)
    stored = tmp_path / "clip.safetensors"
    save_checkpoint(detector.to_checkpoint(), stored)
    loaded = load_detector(stored, device="cpu", precision="fp32")  # its folder is named in the checkpoint
    assert torch.equal(loaded(images).anomaly_map, prediction.anomaly_map)


@pytest.mark.parametrize("tower", ["token", "map"])
@torch.inference_mode()
def test_bf16_keeps_the_residual_stream_exact(folder: Folder, inputs: Tensor, tower: str) -> None:
    clip = GenericCLIP.build(f"local-dir:{folder(tower)[0]}")
    exact = clip.class_feature(clip.run_blocks(clip.embed(inputs)).tokens)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = clip.run_blocks(clip.embed(inputs)).tokens
        rough = clip.class_feature(tokens)
    assert tokens.dtype == torch.float32
    # Measured: at most 0.0001 from 1.
    assert F.cosine_similarity(rough.float(), exact).min() > 0.999


@pytest.mark.parametrize("tower", ["token", "map"])
@torch.inference_mode()
def test_winclip_runs_windows_of_it(folder: Folder, inputs: Tensor, tower: str) -> None:
    path, model = folder(tower)
    detector = WinCLIP.build(WinCLIPSettings(backbone=f"local-dir:{path}", scales=(2, 10)))
    whole = detector.window_features(detector.clip.embed(inputs), (10, 10), 10)
    torch.testing.assert_close(whole[:, 0], model.encode_image(inputs), atol=1e-5, rtol=1e-4)
    assert detector.detect(inputs).anomaly_map.std() > 0


def test_other_weights_are_noticed(folder: Folder) -> None:
    path, _ = folder("token")
    detector = PlainCLIP.build(PlainCLIPSettings(backbone=f"local-dir:{path}"))
    checkpoint = detector.to_checkpoint()
    other = {name: 1.1 * tensor for name, tensor in detector.clip.state_dict().items()}
    with pytest.raises(ModelNotReady, match="not those that"):
        PlainCLIP.from_checkpoint(checkpoint, clip_weights=other)
    misfit = {name: tensor[..., :1] for name, tensor in detector.clip.state_dict().items()}
    with pytest.raises(ModelNotReady, match="not the weights of local-dir"):
        PlainCLIP.from_checkpoint(checkpoint, clip_weights=misfit)


def test_settings_it_cannot_follow_say_so(folder: Folder) -> None:
    path, _ = folder("token")
    for changes, message in (({"image_size": 320}, "must be 160"), ({"dense": "vv"}, "open_clip's own kind")):
        with pytest.raises(ModelNotReady, match=message):
            PlainCLIP.build(PlainCLIPSettings(backbone=f"local-dir:{path}", **changes))


def test_models_that_cannot_be_used_say_so(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(ModelNotReady, match=r"nowhere: holds no open_clip_config.json"):
        GenericCLIP.build(f"local-dir:{tmp_path}/nowhere")
    path, _ = folder("token")
    (path / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelNotReady, match=r"holds no open_clip_model.safetensors or"):
        GenericCLIP.build(f"local-dir:{path}")
    settings = path / "open_clip_config.json"
    header = json.loads(settings.read_text())
    for vision, message in (
        ({"image_size": 160, "layers": 2, "width": 64, "patch_size": 16}, "is open_clip's own"),
        (TOWERS["token"] | {"timm_model_name": "no_such_vit"}, "cannot be built"),
        (TOWERS["token"] | {"timm_model_name": "test_resnet", "timm_pool": "avg"}, "not timm's VisionTrans"),
    ):
        header["model_cfg"]["vision_cfg"] = vision
        settings.write_text(json.dumps(header))
        with pytest.raises(ModelNotReady, match=message) as caught:
            GenericCLIP.build(f"local-dir:{path}")
        assert "\n" not in str(caught.value)
    settings.write_text("{}")
    with pytest.raises(ModelNotReady, match="not a readable open_clip_config"):
        GenericCLIP.build(f"local-dir:{path}")


def test_hub_models_that_are_not_cached_fail_fast_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotReady, match=r"open_clip_config.json is not on this machine .*local-dir:"):
        GenericCLIP.build("hf-hub:nobody/no-such-model")


def test_texts_that_need_transformers_say_so(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = folder("token")
    settings = path / "open_clip_config.json"
    header = json.loads(settings.read_text())
    header["model_cfg"]["text_cfg"] = {"hf_model_name": "nobody/no-such-bert"}
    settings.write_text(json.dumps(header))
    GenericCLIP.build(f"local-dir:{path}")  # images alone do without
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotReady, match="pip install transformers"):
        GenericCLIP.build(f"local-dir:{path}", text=True)


def test_a_text_tower_of_transformers_is_that_of_open_clip(folder: Folder, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "healthy", "brain", "tumour", "with"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    bert = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    bert.save_pretrained(tmp_path)
    text = {
        "hf_model_name": str(tmp_path),
        "hf_model_pretrained": False,
        "hf_tokenizer_name": str(tmp_path),
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 24,
    }
    path, model = folder("token", text_cfg=text)
    weights = path / "open_clip_model.safetensors"
    # As older versions of transformers stored it, for example in BiomedCLIP.
    old = model.state_dict() | {"text.transformer.embeddings.position_ids": torch.arange(32)[None]}
    save_file(old, weights)
    clip = GenericCLIP.build(f"local-dir:{path}", text=True)
    texts = ["a healthy brain", "a brain with a tumour"]
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer(f"local-dir:{path}")(texts))
        found = clip.encode_texts(texts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-4
    detector = PlainCLIP.build(PlainCLIPSettings(backbone=f"local-dir:{path}"))
    assert detector.clip.text is None
