"""Detector checkpoints: one safetensors file with the settings inside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from graph_cases import CLIP
from safetensors import safe_open
from safetensors.torch import save_file

from medzsad.detectors.checkpoint import (
    FINGERPRINT_TOLERANCE,
    FORMAT,
    Checkpoint,
    check_fingerprint,
    read_checkpoint,
    save_checkpoint,
)
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.errors import ModelNotReady, OutputNotWritable

CHECKPOINT = Checkpoint(
    "headclip",
    {"a.weight": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(0, 4, dtype=torch.float16)},
    {"layers": [1, 2], "backbone": {"embed_dim": 8}},
    {"data": "synthetic", "seed": 111},
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "detector.safetensors"
    save_checkpoint(CHECKPOINT, path)
    loaded = read_checkpoint(path)
    assert (loaded.method, loaded.settings, loaded.training) == (
        CHECKPOINT.method,
        CHECKPOINT.settings,
        CHECKPOINT.training,
    )
    assert set(loaded.tensors) == set(CHECKPOINT.tensors)
    for name, tensor in CHECKPOINT.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)
        assert loaded.tensors[name].dtype == tensor.dtype
    assert [file.name for file in path.parent.iterdir()] == ["detector.safetensors"]
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["medzsad"])["format"] == FORMAT


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    save_checkpoint(CHECKPOINT, path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_checkpoint(Checkpoint("headclip", {}, {"not json": object()}), path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputNotWritable, match="cannot write the checkpoint"):
        save_checkpoint(CHECKPOINT, tmp_path / "file" / "detector.safetensors")


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(ModelNotReady, match="no such file"):
        read_checkpoint(path)
    save_checkpoint(CHECKPOINT, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelNotReady, match="damaged"):
        read_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(ModelNotReady, match="damaged"):
        read_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelNotReady, match="not a medzsad checkpoint"):
        read_checkpoint(path)
    for metadata, message in (
        ("{", "not a medzsad checkpoint"),
        ("[]", "not a medzsad checkpoint"),
        (json.dumps({"format": "medzsad-9"}), "another version"),
        (json.dumps({"format": FORMAT, "method": "mini"}), "not a medzsad checkpoint"),
    ):
        save_file({"a": torch.zeros(1)}, path, metadata={"medzsad": metadata})
        with pytest.raises(ModelNotReady, match=message):
            read_checkpoint(path)


def test_a_fingerprint_tells_weights_apart() -> None:
    clip = FrozenCLIP.build(CLIP, None)
    found = clip.fingerprint()
    check_fingerprint(None, clip, "openai")
    check_fingerprint(found, clip, "openai")
    check_fingerprint([x * (1 + FINGERPRINT_TOLERANCE / 2) for x in found], clip, "openai")
    for wrong in ([x * (1 + 2 * FINGERPRINT_TOLERANCE) for x in found], found[:2]):
        with pytest.raises(ModelNotReady, match=r"not those that it saw \(openai\)"):
            check_fingerprint(wrong, clip, "openai", made="it saw")
