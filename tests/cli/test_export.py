from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

from medzsad.backends.onnx_export import probe_images
from medzsad.zoo.download import hash_file
from medzsad.zoo.loading import load_detector


@pytest.mark.slow
def test_onnx_writes_a_checked_file(medzsad, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "asymmetry.onnx"
    code, out, err = medzsad("export", "onnx", "asymmetry", file, "--size", 64)
    assert (code, err) == (0, "")
    assert "images (batch, 3, 64, 64), opset 18" in out
    assert "compared with PyTorch" in out
    images = probe_images(64, 3)
    maps = onnxruntime.InferenceSession(str(file)).run(["anomaly_map"], {"images": images.numpy()})[0]
    detector = load_detector("asymmetry", device="cpu")
    detector.image_size = 64
    torch.testing.assert_close(torch.from_numpy(maps), detector(images).anomaly_map, atol=2e-5, rtol=0)


def test_bundle_is_written_and_told_how_to_run(medzsad, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    code, out, err = medzsad("export", "bundle", "medzsad-mini", folder)
    assert (code, err) == (0, "")
    assert "MONAI bundle of medzsad-mini, 7 files" in out
    assert f"python -m monai.bundle run --config_file {folder}/configs/inference.yaml" in out
    extra = re.search(r'pip install "medzsad\[(\w+)\]"', out).group(1)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"][extra] == ["monai[fire]"]
    assert f'"medzsad[{extra}]==' in (folder / "docs" / "README.md").read_text()
    assert json.loads((folder / "configs" / "metadata.json").read_text())["name"] == "medzsad-mini"
    code, _, err = medzsad("export", "bundle", "medzsad-mini", folder)
    assert code == 2
    assert err == f"error: {folder} is not empty; give a new folder to write the bundle to\n"


def test_a_model_of_the_zoo_brings_its_clip_and_its_licence(
    medzsad, small_weights, cache_dir, tmp_path, monkeypatch
) -> None:
    clip = {
        "architecture": small_weights.architecture,
        "url": small_weights.clip.as_uri(),
        "sha256": hash_file(small_weights.clip).sha256,
    }
    models = {"winclip-vit-b-16": {"settings": {"image_size": 56}}}
    content = {"files": {"clip-vit-b-16-openai": clip}, "models": models}
    (tmp_path / "mirror.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(tmp_path / "mirror.yaml"))
    assert medzsad("models", "fetch", "winclip-vit-b-16", "-q")[0] == 0
    options = ("winclip-vit-b-16", tmp_path / "b", "--organ", "brain")
    code, out, err = medzsad("export", "bundle", *options)
    assert (code, err) == (0, "")
    assert "8 files" in out
    text = (tmp_path / "b" / "docs" / "README.md").read_text()
    assert "- `models/winclip-vit-b-16.safetensors`: winclip-vit-b-16 (" in text
    assert "- `models/clip.safetensors`: CLIP clip-vit-b-16-openai (MIT, https://" in text
    images = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    first = load_detector("winclip-vit-b-16", device="cpu", precision="fp32", organ="brain")(images)
    second = load_detector(
        tmp_path / "b" / "models" / "winclip-vit-b-16.safetensors",
        device="cpu",
        precision="fp32",
        clip_weights=tmp_path / "b" / "models" / "clip.safetensors",
    )(images)
    assert torch.equal(first.anomaly_map, second.anomaly_map)
    code, out, _ = medzsad("export", "bundle", "winclip-vit-b-16", tmp_path / "small", "--without-clip")
    assert (code, "7 files" in out) == (0, True)
    text = (tmp_path / "small" / "docs" / "README.md").read_text()
    assert "medzsad models fetch clip-vit-b-16-openai" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["onnx", "no-such-model", "m.onnx"], "unknown model"),
        (["bundle", "no-such-model", "b"], "unknown model"),
        (["onnx", "brightness", "m.onnx", "--opset", "9"], "opset 9"),
        (["onnx", "medzsad-mini", "m.onnx", "--size", "100"], "no multiple of 16"),
        (["onnx", "brightness", "m.onnx", "--organ", "brain"], "object-agnostic"),
        (["bundle", "brightness", "b", "--adapter", "none.safetensors"], "none.safetensors"),
        (["bundle", "anomalyclip-visa", "b"], "medzsad models fetch anomalyclip-visa"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    medzsad, cache_dir, tmp_path, monkeypatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = medzsad("export", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


@pytest.mark.parametrize("command", [["--help"], ["onnx", "--help"], ["bundle", "--help"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        f"import sys\nfrom medzsad.cli.main import run\ncode = run(['export', *{command!r}])\n"
        "heavy = {'torch', 'monai', 'numpy', 'open_clip', 'safetensors', 'onnx'} & set(sys.modules)\n"
        "sys.exit(code or (3 if heavy else 0))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
