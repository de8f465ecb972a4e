"""Weight files of others: recognised, converted without loss, and nothing in them run."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medzsad.errors import ModelNotReady, OutputNotWritable
from medzsad.storage import cache
from medzsad.zoo.catalogue import WeightFile, find_entry
from medzsad.zoo.convert import install, recognise
from medzsad.zoo.download import hash_file

pytestmark = pytest.mark.usefixtures("cache_dir")


def store(path: Path, **fields: Any) -> Path:
    source = recognise(path)
    file = WeightFile("thing", fields.pop("kind", source.kind), **fields)
    return install(file, source, hash_file(path), verified=False)


def record_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[cache.METADATA_KEY])


def torchscript(small_weights, path: Path) -> dict[str, torch.Tensor]:
    """A traced CLIP in half precision, as OpenAI's archives are."""
    model = open_clip.CLIP(**small_weights.architecture, quick_gelu=True).eval()
    example = (torch.zeros(1, 3, 56, 56), torch.zeros(1, 77, dtype=torch.long))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about Python values in the trace, which is never run
        archive = torch.jit.trace(model, example, check_trace=False)
    archive.half()
    archive.save(str(path))
    return dict(archive.state_dict())


def test_a_clip_keeps_names_and_half_precision(small_weights) -> None:
    path = store(small_weights.clip, architecture=small_weights.architecture)
    stored, original = load_file(path), torch.load(small_weights.clip, weights_only=True)
    assert stored.keys() == original.keys()
    for name, tensor in original.items():
        assert stored[name].dtype == torch.float16
        assert torch.equal(stored[name], tensor)
    assert path.stat().st_size < 1.1 * small_weights.clip.stat().st_size
    record = record_of(path)
    assert record["source"] == "small-clip.pt"  # the name alone, no folders
    assert record["source_sha256"] == hash_file(small_weights.clip).sha256
    assert record["quick_gelu"] is None
    assert cache.read_facts("thing") == record


def test_a_torchscript_archive_is_openais_and_gives_the_same_detector(small_weights, tmp_path) -> None:
    from medzsad.detectors.clip.backbone import FrozenCLIP

    original = torchscript(small_weights, tmp_path / "ViT-tiny.pt")
    source = recognise(tmp_path / "ViT-tiny.pt")
    assert source.kind == "clip"
    assert source.quick_gelu is True
    path = store(tmp_path / "ViT-tiny.pt", architecture=small_weights.architecture)
    stored = load_file(path)
    assert all(torch.equal(stored[name], tensor) for name, tensor in original.items())
    assert record_of(path)["quick_gelu"] is True
    images = torch.randn(2, 3, 56, 56)
    before, after = (
        FrozenCLIP.build(small_weights.architecture, weights, text=True)
        for weights in (tmp_path / "ViT-tiny.pt", path)
    )
    assert after.quick_gelu
    assert torch.equal(before.encode_image(images), after.encode_image(images))


def test_anomalyclip_is_stored_under_its_prompt_learners_name(small_weights) -> None:
    original = torch.load(small_weights.anomalyclip, weights_only=True)["prompt_learner"]
    stored = load_file(store(small_weights.anomalyclip))
    assert stored.keys() == {f"prompt_learner.{name}" for name in original}
    assert all(torch.equal(stored[f"prompt_learner.{name}"], tensor) for name, tensor in original.items())


def test_adaclip_keeps_its_names(small_weights) -> None:
    original = torch.load(small_weights.adaclip, weights_only=True)
    stored = load_file(store(small_weights.adaclip))
    assert stored.keys() == original.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in original.items())


@pytest.mark.parametrize("kind", ["anomalyclip", "adaclip"])
def test_checkpoints_in_the_published_format_are_recognised_and_read_the_same(shared, kind) -> None:
    from medzsad.detectors.clip.weights import read_tensors

    path = shared(f"parity/{kind}_checkpoint.pth")
    assert recognise(path).kind == kind
    before, after = read_tensors(path)[0], read_tensors(store(path))[0]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_of_ours_stays_one() -> None:
    from medzsad.detectors.checkpoint import read_checkpoint

    path = find_entry("medzsad-mini").path
    before, after = read_checkpoint(path), read_checkpoint(store(path))
    assert recognise(path).kind == "medzsad"
    assert (before.method, before.settings, before.training) == (after.method, after.settings, after.training)
    assert all(torch.equal(before.tensors[name], after.tensors[name]) for name in before.tensors)


def test_what_was_converted_once_can_be_imported_again(small_weights, tmp_path) -> None:
    for original, kind in ((small_weights.anomalyclip, "anomalyclip"), (small_weights.adaclip, "adaclip")):
        copy = tmp_path / f"{kind}.safetensors"
        copy.write_bytes(store(original).read_bytes())
        assert recognise(copy).kind == kind


def test_tensors_that_share_memory_are_stored_apart(tmp_path) -> None:
    base = torch.randn(4, 8)
    state = {f"clip_model.patch_token_layer.head.{i}.weight": base.T for i in range(2)}
    torch.save(state, tmp_path / "shared.pth")
    stored = load_file(store(tmp_path / "shared.pth"))
    assert all(torch.equal(tensor, base.T) for tensor in stored.values())


class Evil:
    """Unpickling this would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil-was-here"),))


@pytest.mark.parametrize("disguise", ["state dict", "plain pickle", "nested"])
def test_files_that_would_run_code_are_refused(disguise, tmp_path, monkeypatch, cache_dir) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    content = (
        {"prompt_learner": {"ctx_pos": torch.zeros(1), "x": Evil()}}
        if disguise == "nested"
        else ({"visual.conv1.weight": Evil()})
    )
    if disguise == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ModelNotReady, match=r"evil\.pth: (refused|not a readable)"):
        recognise(path)
    assert not (tmp_path / "evil-was-here").exists()
    assert not cache_dir.exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layer.weight"], "neither CLIP weights"),
        (["vision_model.embeddings.class_embedding"], "Hugging Face"),
        (["visual.trunk.blocks.0.norm1.weight"], "no ViT"),
        (["visual.conv1.weight", "visual.layer1.0.conv1.weight"], "no ViT"),
    ],
)
def test_other_files_are_refused_by_what_they_are(names, message, tmp_path) -> None:
    save_file({name: torch.zeros(3) for name in names}, tmp_path / "x.safetensors")
    with pytest.raises(ModelNotReady, match=message) as caught:
        recognise(tmp_path / "x.safetensors")
    assert str(tmp_path / "x.safetensors") in str(caught.value)


def test_missing_empty_and_damaged_files(tmp_path, small_weights) -> None:
    (tmp_path / "empty.pth").touch()
    (tmp_path / "cut.pth").write_bytes(small_weights.adaclip.read_bytes()[:10_000])
    (tmp_path / "text.pth").write_text("<html>please log in</html>")
    for name in ("missing.pth", "empty.pth", "cut.pth", "text.pth"):
        with pytest.raises(ModelNotReady, match=name):
            recognise(tmp_path / name)


def test_a_file_of_another_kind_or_architecture_is_not_stored(small_weights, cache_dir) -> None:
    with pytest.raises(ModelNotReady, match=r"recognised as 'adaclip', but thing is of kind 'anomalyclip'"):
        store(small_weights.adaclip, kind="anomalyclip")
    with pytest.raises(ModelNotReady, match=r"small-clip\.pt: not a ViT-B-32"):
        store(small_weights.clip, architecture="ViT-B-32")
    assert not cache_dir.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of file sizes")
def test_a_disk_that_fills_up_while_converting_leaves_nothing_behind(small_weights, cache_dir) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from medzsad.zoo.download import hash_file\n"
        "from medzsad.zoo.convert import install, recognise\n"
        "from medzsad.zoo.catalogue import WeightFile\n"
        "from medzsad.errors import OutputNotWritable\n"
        f"path = Path({str(small_weights.clip)!r})\n"
        "source, hashes = recognise(path), hash_file(path)\n"
        f"file = WeightFile('thing', 'clip', architecture={small_weights.architecture!r})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "try:\n    install(file, source, hashes, verified=True)\n"
        "except OutputNotWritable as error:\n    print(error)\n    sys.exit(7)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 7, result.stderr
    assert "make room" in result.stdout
    assert len(result.stdout.splitlines()) == 1
    assert [path for path in cache_dir.rglob("*") if path.is_file()] == []


def test_too_little_space_is_said_before_converting(small_weights, monkeypatch, cache_dir) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(OutputNotWritable, match="too little space"):
        store(small_weights.adaclip)
    assert not cache.slot("thing").exists()
