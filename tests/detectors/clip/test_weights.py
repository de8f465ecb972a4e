"""Every file format, every way a file can be wrong, and tags without a network."""

from __future__ import annotations

import pickle
import time
import urllib.error
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from medzsad.detectors.clip import pretrained
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.clip.weights import load_clip_state
from medzsad.errors import ModelNotReady


def save_torchscript(model: open_clip.CLIP, path: Path) -> None:
    half = open_clip.CLIP.half(model)
    example = (torch.zeros(1, 3, 56, 56).half(), torch.zeros(1, 77, dtype=torch.long))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(half, example, check_trace=False), str(path))


SAVERS: dict[str, Callable[[open_clip.CLIP, Path], None]] = {
    "archive.pt": save_torchscript,
    "state.pt": lambda model, path: torch.save(model.state_dict(), path),
    "wrapped.pth": lambda model, path: torch.save(
        {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in model.state_dict().items()}}, path
    ),
    "legacy.pt": lambda model, path: torch.save(
        model.state_dict(), path, _use_new_zipfile_serialization=False
    ),
    "open_clip_model.safetensors": lambda model, path: save_file(model.state_dict(), path),
    "open_clip_pytorch_model.bin": lambda model, path: torch.save(model.half().state_dict(), path),
}


@pytest.mark.parametrize("name", SAVERS)
def test_every_local_format_loads(
    name: str, tmp_path: Path, reference: open_clip.CLIP, tiny_config: dict[str, Any]
) -> None:
    expected = {n: t.clone() for n, t in reference.state_dict().items()}
    SAVERS[name](reference, tmp_path / name)
    clip = FrozenCLIP.build(tiny_config, tmp_path / name, text=True)
    (tmp_path / name).unlink()
    assert clip.quick_gelu == (name == "archive.pt")
    for parameter, tensor in clip.state_dict().items():
        wanted = expected[parameter.removeprefix("text.")]
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, wanted, rtol=1e-3, atol=1e-4)
    assert clip.encode_texts(["a scan"]).shape == (1, 32)


def test_what_the_weights_need_decides_quick_gelu(tmp_path: Path) -> None:
    tensors = {"visual.proj": torch.zeros(2, 2)}
    hub = tmp_path / "models--timm--vit_large_patch14_clip_336.openai" / "snapshots"
    hub.mkdir(parents=True)
    for path, expected in ((tmp_path / "x.bin", None), (hub / "x.bin", True), (tmp_path / "OpenAI.pt", True)):
        torch.save(tensors, path)
        assert load_clip_state(path, model=None, text=False).quick_gelu is expected
    torch.save(
        tensors | {n: torch.tensor(1) for n in ("input_resolution", "context_length", "vocab_size")},
        tmp_path / "jit_state.pt",
    )
    assert load_clip_state(tmp_path / "jit_state.pt", model=None, text=False).quick_gelu


def test_a_model_whose_only_weights_are_openais_gets_quick_gelu() -> None:
    from medzsad.detectors.clip.configuration import every_tag_needs_quick_gelu

    assert every_tag_needs_quick_gelu("ViT-L-14-336")
    assert not every_tag_needs_quick_gelu("ViT-B-32")
    assert not every_tag_needs_quick_gelu("no such model")


class Evil:
    """Unpickling this would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil-was-here"),))


@pytest.mark.parametrize("disguise", ["state dict", "plain pickle", "TorchScript"])
def test_files_that_would_run_code_are_refused(
    disguise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if disguise == "plain pickle":
        path.write_bytes(pickle.dumps({"visual.proj": Evil()}))
    else:
        torch.save({"visual.proj": Evil()}, path)
    if disguise == "TorchScript":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("evil/constants.pkl", pickle.dumps(Evil()))
    with pytest.raises(ModelNotReady, match=r"evil\.pt: (refused|not a readable)"):
        FrozenCLIP.build(tiny_config, path)
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize(
    ("name", "keep"),
    [("state.pt", 0.5), ("open_clip_model.safetensors", 0.5), ("archive.pt", 0.5), ("x.pt", 0)],
)
def test_files_cut_short_are_told_apart_from_bugs(
    name: str, keep: float, tmp_path: Path, reference: open_clip.CLIP, tiny_config: dict[str, Any]
) -> None:
    path = tmp_path / name
    SAVERS.get(name, SAVERS["state.pt"])(reference, path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ModelNotReady, match="damaged") as caught:
        FrozenCLIP.build(tiny_config, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def change(state: dict[str, Tensor], kind: str) -> dict[str, Any]:
    if kind == "missing":
        del state["visual.ln_post.bias"], state["visual.proj"]
    elif kind == "shape":
        state["visual.proj"] = torch.zeros(128, 48)
    elif kind == "deeper":
        state["visual.transformer.resblocks.4.ln_1.weight"] = torch.zeros(128)
    elif kind == "other":
        return {"layer.weight": torch.zeros(3)}
    elif kind == "transformers":
        return {"vision_model.embeddings.class_embedding": torch.zeros(3)}
    elif kind == "list":
        return [torch.zeros(3)]
    return state


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"visual\.ln_post\.bias and 1 more missing|visual\.proj and 1 more missing"),
        ("shape", r"visual\.proj is \(128, 48\), needed is \(128, 32\)"),
        ("deeper", "resblocks.4"),
        ("other", "holds no CLIP weights"),
        ("transformers", "layout of Hugging Face"),
        ("list", "not a state dict"),
    ],
)
def test_weights_of_another_model_are_refused_in_one_line(
    kind: str, message: str, tmp_path: Path, reference: open_clip.CLIP, tiny_config: dict[str, Any]
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(change(dict(reference.state_dict()), kind), path)
    with pytest.raises(ModelNotReady, match=message) as caught:
        FrozenCLIP.build(tiny_config, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_text_tower_that_is_missing_matters_only_when_asked_for(
    tmp_path: Path, reference: open_clip.CLIP, tiny_config: dict[str, Any]
) -> None:
    path = tmp_path / "image_only.pt"
    torch.save({n: t for n, t in reference.state_dict().items() if n.startswith("visual.")}, path)
    FrozenCLIP.build(tiny_config, path)
    with pytest.raises(ModelNotReady, match="text"):
        FrozenCLIP.build(tiny_config, path, text=True)


def test_names_that_are_no_weights(tmp_path: Path, tiny_config: dict[str, Any]) -> None:
    pointer = tmp_path / "pointer.bin"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for model, weights, message in (
        ("ViT-B-32", "no-such-tag", "nor a pretrained tag|pretrained tag of ViT-B-32"),
        ("ViT-B-32", tmp_path / "absent.pt", "no such weights file"),
        ("ViT-B-32", tmp_path, "a folder"),
        (tiny_config, "openai", "needs a model by name"),
        (tiny_config, pointer, "Git LFS pointer"),
    ):
        with pytest.raises(ModelNotReady, match=message):
            FrozenCLIP.build(model, weights)


def test_a_tag_without_a_network_fails_at_once_and_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(pretrained.urllib.request, "urlopen", unreachable)
    start = time.monotonic()
    with pytest.raises(ModelNotReady) as caught:
        FrozenCLIP.build("ViT-L-14-336", "openai")
    assert time.monotonic() - start < 10
    message = str(caught.value)
    for part in ("cannot be reached", "open_clip_model.safetensors", "ViT-L-14-336px.pt", "`clip_weights`"):
        assert part in message
    assert "\n" not in message
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotReady, match="HF_HUB_OFFLINE"):
        FrozenCLIP.build("ViT-L-14-336", "openai")


def test_a_tag_is_found_in_the_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: None)
    cached = tmp_path / ".cache" / "clip" / "ViT-L-14-336px.pt"
    cached.parent.mkdir(parents=True)
    torch.save({"visual.proj": torch.zeros(3, 3)}, cached)
    state = load_clip_state("openai", model="ViT-L-14-336", text=False)
    assert state.origin == str(cached)
    assert state.quick_gelu
    hub = tmp_path / "hub.bin"
    torch.save({"visual.proj": torch.zeros(3, 3)}, hub)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: str(hub))
    assert load_clip_state("openai", model="ViT-L-14-336", text=False).origin == str(hub)
