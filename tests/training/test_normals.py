"""From normal scans to their profile."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from normal_images import save, save_volume, texture

import medzsad
from medzsad.detectors.normals.model import NormalsDetector
from medzsad.errors import BadInput
from medzsad.training.normals import _Reservoir, fit_normals, normal_places

SIZE = 96


def images(folder: Path, *seeds: int) -> list[Path]:
    return [save(folder / f"{seed}.png", texture(seed)) for seed in seeds]


def fit(scans: list, **options: object) -> NormalsDetector:
    return fit_normals(scans, image_size=SIZE, **options)  # type: ignore[arg-type]


def test_one_image_is_enough_to_begin_with(tmp_path: Path) -> None:
    profile = fit(images(tmp_path, 1), augmentation="none")
    assert profile.record["augmentation"] == "flip"  # something must be left out
    assert (profile.record["scans"], profile.record["images"]) == (1, 1)
    assert medzsad.predict(save(tmp_path / "other.png", texture(5)), profile).score < 0.9


def test_the_same_normals_give_the_same_profile(tmp_path: Path) -> None:
    scans = images(tmp_path, 1, 2)
    first, second = fit(scans), fit(scans)
    assert first.digest == second.digest
    assert fit(scans, augmentation="none").digest != first.digest


def test_all_slices_of_volumes_count(tmp_path: Path) -> None:
    volumes = [save_volume(tmp_path / f"{seed}.nii.gz", seed, slices=3) for seed in (1, 2)]
    record = fit(volumes).record
    assert (record["scans"], record["images"]) == (2, 6)
    assert record["framing"] == "foreground"


def test_whole_images_are_shown_as_they_are(tmp_path: Path) -> None:
    profile = fit(images(tmp_path, 1, 2), framing="whole")
    assert profile.framing == "whole"
    assert profile.record["modalities"] == []


def test_copies_count_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scans = images(tmp_path, 1, 2)
    copy = save(tmp_path / "copy.png", texture(1))
    with caplog.at_level(logging.INFO, "medzsad"):
        assert fit([*scans, copy]).record["scans"] == 2
    assert "counts once" in caplog.text
    with pytest.raises(BadInput, match="copies of one"):
        fit([scans[0], copy])


def test_the_record_names_nothing(tmp_path: Path) -> None:
    scans = [save(tmp_path / f"jane_doe_{seed}.png", texture(seed)) for seed in (1, 2)]
    assert "jane" not in str(fit(scans).record)


def test_bad_input_is_refused_in_a_line(tmp_path: Path) -> None:
    scans = images(tmp_path, 1, 2)
    text = tmp_path / "notes.txt"
    text.write_text("normal")
    flat = tmp_path / "flat.png"
    save(flat, texture(1) * 0 + 5)
    with pytest.raises(BadInput, match=r"notes\.txt.*; .*flat\.png|notes\.txt.*; .*flat"):
        fit([scans[0], text, scans[1], flat])
    with pytest.raises(BadInput, match=r"several modalities \(grey, mr\)"):
        fit([scans[0], medzsad.read_scan(save_volume(tmp_path / "v.nii.gz", 1), modality="mr")])
    for options, words in (
        ({"augmentation": "turn"}, "unknown augmentation"),
        ({"framing": "half"}, "unknown framing"),
        ({"height_weight": -1.0}, "height_weight"),
        ({"height_weight": float("nan")}, "height_weight"),
    ):
        with pytest.raises(BadInput, match=words):
            fit(scans, **options)
    with pytest.raises(BadInput, match="no normal scans"):
        fit([])


def test_folders_are_expanded_and_files_counted_once(tmp_path: Path) -> None:
    scans = images(tmp_path / "good", 1, 2)
    (tmp_path / "good" / "notes.txt").write_text("these are normal")
    places, _ = normal_places([tmp_path / "good", scans[0]])
    assert [place.path for place in places] == scans
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no scans"):
        normal_places([tmp_path / "empty"])


def test_every_row_has_the_same_chance_to_be_kept() -> None:
    reservoir = _Reservoir(1000)
    draw = torch.Generator().manual_seed(0)
    for number in range(100):
        reservoir.add(torch.full((100, 2), float(number)), torch.rand(100, generator=draw))
    rows = reservoir.rows()
    assert rows.shape == (1000, 2)
    assert abs(float(rows.mean()) - 49.5) < 4
