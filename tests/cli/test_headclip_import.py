"""A file of HeadCLIP's: one command imports it, and it predicts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.errors import ModelNotReady
from medzsad.storage import cache
from medzsad.zoo.loading import load_detector


@pytest.fixture
def small_headclip(cache_dir, small_weights, tmp_path, monkeypatch) -> tuple[Path, dict[str, Tensor]]:
    """A file of HeadCLIP's for the small CLIP, which the catalogue's backbone is made to be."""
    content = {"files": {"clip-vit-l-14-336-openai": {"architecture": small_weights.architecture}}}
    content["files"]["clip-vit-l-14-336-openai"]["sha256"] = None
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(tmp_path / "small.yaml"))
    prompts = torch.load(small_weights.anomalyclip, weights_only=True)["prompt_learner"]
    heads = {"patch": 1 + 0.1 * torch.randn(12, 2), "image": 1 + 0.1 * torch.randn(12, 2)}
    torch.save({"prompt_learner": prompts, "head_weights": heads}, tmp_path / "headclip.pth")
    return tmp_path / "headclip.pth", heads


def test_an_imported_file_predicts_as_headclip_with_its_weights(
    medzsad, small_headclip, small_weights, tmp_path
) -> None:
    path, heads = small_headclip
    assert medzsad("models", "import", str(small_weights.clip), "--as", "clip-vit-l-14-336-openai")[0] == 0
    code, out, err = medzsad("models", "import", str(path), "--as", "headclip-trained")
    assert (code, err) == (0, "")
    assert "imported as headclip weights" in out
    assert "head weights of the patch path: layers 1 to 12 of 12, 2 heads" in out
    assert "used by: headclip-trained" in out
    assert cache.read_facts("headclip-trained")["notes"]
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(tmp_path / "scan.png")
    arguments = ("-o", tmp_path / "out", "--device", "cpu", "--precision", "fp32")
    code, _, err = medzsad("predict", tmp_path / "scan.png", "--model", "headclip-trained", *arguments)
    assert code == 0, err
    result = json.loads(next((tmp_path / "out").rglob("*.json")).read_text())
    assert 0 < result["score"] < 1

    detector = load_detector("headclip-trained", device="cpu", precision="fp32")
    assert isinstance(detector, HeadCLIP)
    for name, weights in heads.items():
        for layer, factors in detector.head_weights.scales(name).items():
            assert torch.equal(factors, weights[layer - 1])
    assert len(detector.head_weights.scales("image")) == 12
    given = load_detector("headclip-trained", adapter=path, device="cpu", precision="fp32")
    assert torch.equal(given.head_weights.patch, detector.head_weights.patch)
    assert torch.equal(given.text_features, detector.text_features)


def test_anomalyclip_does_not_take_head_weights(small_headclip, small_weights, medzsad) -> None:
    path, _ = small_headclip
    with pytest.raises(ModelNotReady, match="it is HeadCLIP's"):
        load_detector("anomalyclip-visa", adapter=path, clip_weights=small_weights.clip)
    code, _, err = medzsad("models", "import", str(path), "--as", "anomalyclip-visa")
    assert code == 2
    assert "recognised as 'headclip'" in err
