"""Scores of normal heads: whose count, and which checkpoints get them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest
import torch
from dicom_factory import write_series
from mini_cases import detector_of_slices, network_for_slices

import medzsad
from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.normal_scores import read_normal_scores
from medzsad.scans.scan import Modality

TOOLS = Path(__file__).parents[2] / "tools"
MM = 4.0
LABELS = {66: 511, 62: 515, 58: 24, 56: 3, 50: 2, 12: 4}  # radius in mm: skin to ventricles
MADE = 3


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("normal_scores")


@pytest.fixture
def own_threads() -> Iterator[None]:
    """Give the tests that follow their threads back: the command takes one."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Balls for heads, in the folders of the real ones. One of them is too small for a head."""
    root = tmp_path_factory.mktemp("shared")
    data = root / "data"
    for index, radius in enumerate((62, 64, 30)):
        save_volume(data / "nichart_demo" / "t1" / f"subj{index}.nii.gz", ball(radius, seed=index), MM)
    depths = [MM * index for index in range(36)]
    series = {"PixelSpacing": [MM, MM], "SliceThickness": MM}
    mr = {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", **series}
    write_series(data / "dicom_brain_mr", ball(60, seed=3).transpose(2, 1, 0), depths, **mr)
    head = ball(66, seed=4, air=-1000, tissue=30, noise=4)
    write_series(data / "dicom_head_ct", head.transpose(2, 1, 0), depths, **series)
    labels = np.zeros((140,) * 3, np.int16)
    distance = np.linalg.norm(np.indices(labels.shape) - 69.5, axis=0)
    for radius, label in LABELS.items():
        labels[distance < radius] = label
    save_volume(data / "brain_label_maps" / "seg_01.nii.gz", labels, 1.0)
    return root


def ball(radius: float, *, seed: int, air: float = 0, tissue: float = 300, noise: float = 30) -> np.ndarray:
    """An int16 volume of 36 voxels of 4 mm along each axis."""
    inside = np.linalg.norm((np.indices((36,) * 3) - 17.5) * MM, axis=0) < radius
    texture = np.random.default_rng(seed).normal(tissue, noise, inside.shape)
    return np.where(inside, texture, air).astype(np.int16)


def save_volume(path: Path, voxels: np.ndarray, mm: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([mm, mm, mm, 1.0])), path)


def detector() -> MedzsadMini:
    """To which all of a volume is brain: the volume decides whether that can be trusted."""
    made = detector_of_slices()
    with torch.no_grad():
        made.slice_network.brain_head.weight.zero_()
        made.slice_network.brain_head.bias.fill_(5.0)
    return made


def quantiles_between(lowest: float, highest: float) -> list[float]:
    return np.linspace(lowest, highest, 21).tolist()


def test_heads_with_a_brain_count_by_kind_and_origin(
    tool: ModuleType, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {(one.kind, one.origin): one for one in tool.measure(detector(), root, MADE)}
    counts = {key: one.count for key, one in measured.items()}
    assert (counts["MR head", "real"], counts["CT head", "real"]) == (3, 1)  # without the smallest
    assert counts.get(("MR head", "made"), 0) + counts.get(("CT head", "made"), 0) == MADE
    # They are the scores that anyone gets for these files.
    folder = root / "data"
    files = [folder / "nichart_demo" / "t1" / f"subj{index}.nii.gz" for index in (0, 1)]
    scores = [medzsad.predict(path, detector()).score for path in (*files, folder / "dicom_brain_mr")]
    real = measured["MR head", "real"].quantiles
    assert (real[0], real[10], real[20]) == pytest.approx(np.sort(scores), abs=1e-4)
    assert real[0] < real[20]
    ct = medzsad.predict(folder / "dicom_head_ct", detector()).score
    assert measured["CT head", "real"].quantiles == pytest.approx(quantiles_between(ct, ct), abs=1e-4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 + MADE
    assert [line.split(":")[0] for line in lines if line.endswith(", no brain")] == ["real subj2"]
    assert not any("SECRET" in line.upper() for line in lines)


def test_made_heads_are_without_lesions_and_follow_their_number(tool: ModuleType, root: Path) -> None:
    first, second = tool.made_heads(root, 2)
    (again,) = tool.made_heads(root, 1)
    np.testing.assert_array_equal(again.voxels, first.voxels)
    assert first.voxels.shape != second.voxels.shape or not np.array_equal(first.voxels, second.voxels)
    assert [scan.name for scan in (first, second)] == ["head0", "head1"]
    heads = tool.load_heads(root)
    for seed, scan in enumerate((first, second)):
        drawn = tool.draw_head_volume(np.random.default_rng(seed), heads)
        np.testing.assert_array_equal(scan.voxels, drawn.normal)
        assert not np.array_equal(drawn.normal, drawn.sick)
        assert scan.modality is drawn.modality
        assert scan.modality in (Modality.MR, Modality.CT)
        np.testing.assert_allclose(scan.spacing, np.diag(drawn.affine)[:3])


@pytest.mark.usefixtures("own_threads")
def test_the_command_stores_them_in_every_checkpoint_and_changes_nothing_else(
    tool: ModuleType,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = replace(detector().to_checkpoint(), training={"seed": 1})
    before = {"detector.safetensors": whole, "slice.safetensors": network_for_slices()}
    for name, checkpoint in before.items():
        save_checkpoint(checkpoint, tmp_path / name)
        before[name] = read_checkpoint(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["normal_scores", *before, "--data", str(root), "--made", "1"])
    tool.main()
    expected = tool.measure(MedzsadMini.from_checkpoint(whole), root, 1)
    assert {(one.kind, one.origin) for one in expected} > {("MR head", "real"), ("CT head", "real")}
    for name, checkpoint in before.items():
        after = read_checkpoint(tmp_path / name)
        assert list(read_normal_scores(after.settings["normal_scores"])) == expected
        assert after.settings.keys() == checkpoint.settings.keys() | {"normal_scores"}
        for key in checkpoint.settings.keys() - {"normal_scores"}:
            assert after.settings[key] == checkpoint.settings[key]
        assert after.training == checkpoint.training
        assert after.tensors.keys() == checkpoint.tensors.keys()
        assert all(torch.equal(after.tensors[key], tensor) for key, tensor in checkpoint.tensors.items())
    loaded = MedzsadMini.from_checkpoint(read_checkpoint(tmp_path / "detector.safetensors"))
    assert loaded.normal_scores == tuple(expected)
    assert f"{expected[0].kind}, {expected[0].origin}: {expected[0].count}, " in capsys.readouterr().out
