"""Whole evaluations: several detectors, references, files, and what the tables say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medzsad.datasets.opening import open_dataset
from medzsad.datasets.samples import SampleSet
from medzsad.detectors.references import Brightness
from medzsad.errors import BadInput, OutputNotWritable
from medzsad.evaluation.case_files import CaseFiles
from medzsad.evaluation.evaluate import REFERENCES, evaluate, has_seen
from medzsad.evaluation.outcome import Evaluation
from medzsad.evaluation.reporting import comparison, per_class, plain_rows, save_evaluation, tables
from medzsad.evaluation.settings import EvaluationSettings

SETTINGS = EvaluationSettings(size=48, resamples=40)


@pytest.fixture
def evaluation(blobs: SampleSet) -> Evaluation:
    sharp = Brightness(smoothing_sigma=0.5).eval()
    sharp.name, sharp.seen = "sharp", ("mvtec",)
    return evaluate(blobs, [sharp], SETTINGS)


def test_references_stand_beside_every_detector(blobs: SampleSet, evaluation: Evaluation) -> None:
    assert [d.name for d in evaluation.detectors] == ["sharp", *REFERENCES]
    assert [d.reference for d in evaluation.detectors] == [False, True, True, True]
    bright = Brightness().eval()
    alone = evaluate(blobs, [bright], SETTINGS, references=("brightness", "darkness"))
    assert [d.name for d in alone.detectors] == ["brightness", "darkness"]  # not twice
    assert alone.detectors[0].mean["pixel"]["auroc"].value == pytest.approx(
        evaluation.detectors[1].mean["pixel"]["auroc"].value
    )


def test_what_a_detector_has_seen_is_marked(evaluation: Evaluation) -> None:
    assert [d.zero_shot for d in evaluation.detectors] == [False, True, True, True]
    text = comparison(evaluation, "pixel").terminal()
    assert "sharp*" in text
    assert "* not zero-shot" in text
    assert has_seen(["all 14 sets"], "kvasir")
    assert not has_seen(["visa", "synthetic"], "kvasir")


def test_other_preparations_of_seen_images_are_seen() -> None:
    assert has_seen(["dagm"], "dagm-balanced")
    assert has_seen(["covid19-all"], "covid19")
    assert has_seen(["all 14 sets"], "dagm-balanced")
    assert not has_seen(["all 14 sets"], "folder")  # one's own data are in no paper
    assert not has_seen(["all 14 sets"], "ddti")
    assert has_seen(["visa (part: 24 of 2162 images)"], "visa")
    assert has_seen(["dagm (part: 8 of 8050 images)"], "dagm-balanced")
    # Whether these are of the set, or of one's own folder, is not known.
    assert has_seen(["custom: images given as visa"], "visa")
    assert has_seen(["custom: images given as synthetic"], "folder")
    assert not has_seen(["custom: images given as visa"], "mvtec")


def test_models_of_one_name_are_refused(blobs: SampleSet) -> None:
    with pytest.raises(BadInput, match="two models are called brightness"):
        evaluate(blobs, [Brightness().eval(), Brightness().eval()], SETTINGS)


def test_a_foreground_that_is_not_there_is_refused(volumes: SampleSet) -> None:
    settings = EvaluationSettings(resamples=0, foreground_only=True)
    with pytest.raises(BadInput, match="3 of 3 samples of volumes come without a foreground mask"):
        evaluate(volumes, [Brightness().eval()], settings)


def test_tables_are_in_percent_and_in_the_papers_order(evaluation: Evaluation) -> None:
    table = comparison(evaluation, "pixel")
    assert table.header == ["detector", "AUROC", "AP", "F1-max", "AUPRO", "mAD", "Dice"]
    mean = evaluation.detectors[0].mean["pixel"]
    assert table.rows[0][1] == f"{100 * mean['auroc'].value:.1f}"
    assert "mean of 2 classes" in table.title
    assert "masks: as in the published evaluations" in table.terminal()
    published = {row[0]: row for row in table.rows if row[0].startswith("published")}
    assert published["published: AnomalyCLIP"][4] == "81.4"
    classes = per_class(evaluation, evaluation.detectors[0], "image")
    assert [row[:3] for row in classes.rows] == [
        ["bottle", "4", "5"],
        ["cable", "4", "5"],
        ["mean", "8", "10"],
    ]
    assert [t.title for t in tables(evaluation)][:2] == [
        comparison(evaluation, level).title for level in ("image", "pixel")
    ]


def test_a_set_without_normal_images_says_so_once(tmp_path: Path, blobs: SampleSet) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "polyps" / folder).mkdir(parents=True)
    for number in range(4):
        pixels = rng.integers(0, 90, (32, 32)).astype(np.uint8)
        mask = np.zeros((32, 32), np.uint8)
        mask[8:16, 8:16] = 255
        Image.fromarray(np.maximum(pixels, mask // 2 + 60)).save(tmp_path / f"polyps/images/{number}.png")
        Image.fromarray(mask).save(tmp_path / f"polyps/masks/{number}.png")
    samples = open_dataset("kvasir", tmp_path / "polyps")
    found = tables(evaluate(samples, [Brightness().eval()], SETTINGS, references=()))
    assert len(found) == 1
    assert found[0].notes[0] == "image level: undefined, no normal image"
    assert "undefined" not in "".join(cell for row in found[0].rows for cell in row)


def test_files(tmp_path: Path, evaluation: Evaluation) -> None:
    names = {path.name for path in save_evaluation(evaluation, tmp_path / "out")}
    curves = {f"{level}_{kind}" for level in ("image", "pixel") for kind in ("roc", "pr")} | {"pixel_pro"}
    pictures = {f"{name}.{suffix}" for name in (*curves, "scores") for suffix in ("png", "svg")}
    assert names == {"metrics.json", "metrics.csv", "table.md", "table.tex"} | pictures
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["settings"] == {**SETTINGS.as_dict(), "masks": "published"}
    first = document["detectors"][0]
    value = evaluation.detectors[0].classes[0].figures["pixel"]["auroc"].value
    assert first["classes"][0]["figures"]["pixel"]["auroc"]["value"] == pytest.approx(value, abs=1e-6)
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").open()))
    assert len(rows) == len(plain_rows(evaluation)[1])
    same = [r for r in rows if r["detector"] == "sharp" and r["class"] == "bottle" and r["metric"] == "auroc"]
    assert float(next(r for r in same if r["level"] == "pixel")["value"]) == value
    for name in pictures:
        if name.endswith(".png"):
            with Image.open(tmp_path / "out" / name) as picture:
                assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_the_same_evaluation_gives_the_same_files(tmp_path: Path, evaluation: Evaluation) -> None:
    first, second = (save_evaluation(evaluation, tmp_path / name) for name in ("a", "b"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_maps_and_the_contact_sheet(tmp_path: Path, blobs: SampleSet) -> None:
    detector = Brightness().eval()
    evaluate(
        blobs,
        [detector],
        SETTINGS,
        references=("darkness",),
        case_files=lambda name, threshold: CaseFiles(tmp_path / name, name, 0.5, "blobs"),
    )
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"blobs", "brightness"}
    maps = sorted((tmp_path / "brightness" / "maps").iterdir())
    assert len(maps) == len(blobs)
    with Image.open(next(p for p in maps if "bottle" in p.name and "bright" in p.name)) as stored:
        values = np.asarray(stored)
        assert stored.size in ((40, 40), (48, 40))
    assert values.dtype.kind in "ui"
    assert values.max() > 40_000
    with Image.open(tmp_path / "brightness" / "cases.png") as sheet:
        assert sheet.width > 1000


def test_volumes_are_drawn_too(tmp_path: Path, volumes: SampleSet) -> None:
    import nibabel

    found = evaluate(
        volumes,
        [Brightness().eval()],
        SETTINGS,
        references=(),
        case_files=lambda name, threshold: CaseFiles(tmp_path / name, name, 0.7, "volumes"),
    )
    assert found.level == "voxel"
    assert [table.title.split(", ")[2] for table in tables(found)] == [
        "image level",
        "mean over volumes",
        "all voxels pooled",
        "lesions",
    ]
    maps = sorted((tmp_path / "brightness" / "maps").iterdir())
    assert len(maps) == 3
    stored = nibabel.load(maps[0])
    assert stored.shape == (24, 22, 12)
    np.testing.assert_allclose(stored.affine, np.diag([2, 2, 3, 1]))
    assert (tmp_path / "brightness" / "cases.png").is_file()


def square(path: Path, width: int) -> None:
    """A bright square: an image, or its mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((20, width), np.uint8)
    pixels[4:12, 5:15] = 255
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("names", [("ä", "ö"), ("a b", "a_b"), ("A+b", "a b")])
def test_each_case_keeps_its_own_map(tmp_path: Path, names: tuple[str, str]) -> None:
    root = tmp_path / "set"
    for number, name in enumerate(names):
        for folder in ("images", "masks"):
            square(root / folder / f"{name}.png", 24 + number)
    files = CaseFiles(tmp_path / "out", "brightness", 0.5, "set")
    samples = open_dataset("folder", root)
    evaluate(samples, [Brightness().eval()], SETTINGS, references=(), case_files=lambda *_: files)
    widths = []
    for path in (tmp_path / "out" / "maps").iterdir():
        with Image.open(path) as stored:
            widths.append(stored.width)
    assert sorted(widths) == [24, 25]
    for sample in samples:
        image, heat, _ = files._draw[sample.id]()
        assert image.shape[:2] == heat.shape


def test_maps_that_cannot_be_written_are_told(tmp_path: Path, blobs: SampleSet) -> None:
    (tmp_path / "out").write_text("a file where a folder is needed")
    files = CaseFiles(tmp_path / "out", "brightness", 0.5, "blobs")
    with pytest.raises(OutputNotWritable, match="cannot be written"):
        evaluate(blobs, [Brightness().eval()], SETTINGS, references=(), case_files=lambda *_: files)


def test_one_image_has_figures_without_intervals(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        square(tmp_path / folder / "only.png", 24)
    found = evaluate(open_dataset("folder", tmp_path), [Brightness().eval()], SETTINGS, references=())
    figure = found.detectors[0].mean["pixel"]["auroc"]
    assert figure.value is not None
    assert figure.interval is None
