"""Suites: what is there is evaluated once, what fails is named, and the tables say what they are of."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medzsad.datasets.catalog import entries
from medzsad.datasets.opening import DatasetQuery
from medzsad.errors import BadInput
from medzsad.evaluation import suite as module
from medzsad.evaluation.settings import EvaluationSettings, RunSettings
from medzsad.evaluation.suite import run_suite
from medzsad.evaluation.suite_outcome import Suite
from medzsad.evaluation.suite_report import CSV_HEADER, save_suite, suite_document, suite_rows, suite_tables

SETTINGS = EvaluationSettings(size=32, resamples=20)


def blob(rng: np.random.Generator, marked: bool) -> tuple[np.ndarray, np.ndarray]:
    image, mask = rng.integers(40, 120, (36, 40)).astype(np.uint8), np.zeros((36, 40), np.uint8)
    if marked:
        row, column = rng.integers(2, 20, 2)
        image[row : row + 9, column : column + 12] += 90
        mask[row : row + 9, column : column + 12] = 255
    return image, mask


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two polyp sets, one of slices, one industrial in part; and a cache of the test's own."""
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "cache"))
    for name in ("kvasir", "brainmri"):  # as many as here: what else tells a set in a layout that any has?
        monkeypatch.setitem(entries(), name, replace(entries()[name], counts={"test": 4}))
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for number in range(4):
        for folder, names in (("kvasir", ("images", "masks")), ("medical/CVC-ColonDB", ("", ""))):
            for name, pixels in zip(names, blob(rng, True), strict=True):
                prefix = "p" if not name and pixels.max() == 255 else ""
                save(root / folder / name / f"{prefix}{number}.tiff", pixels)
        save(root / "brainmri" / ("yes" if number % 2 else "no") / f"{number}.png", blob(rng, number % 2)[0])
        for name in ("bottle", "cable"):
            kind = "hole" if number % 2 else "good"
            image, mask = blob(rng, bool(number % 2))
            save(root / "mvtec_subset" / name / "test" / kind / f"{number}.png", image)
            if number % 2:
                save(root / "mvtec_subset" / name / "ground_truth" / kind / f"{number}_mask.png", mask)
    return root


def run(
    data: Path,
    suite: str = "paper17",
    settings: EvaluationSettings = SETTINGS,
    *,
    model: str = "brightness",
    limit: int | None = None,
    **options: Any,
) -> Suite:
    query = DatasetQuery(suite, data, limit=limit)
    return run_suite(query, [model], settings, RunSettings(**options))


def column(table: Any, name: str) -> dict[str, str]:
    """The cells of a column by the row's label, of the last block that has the label."""
    at = table.header.index(name)
    return {row[0].strip(): row[at] for row in table.rows}


def test_what_is_there_is_done_and_each_missing_set_is_named(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "medzsad")
    found = run(data)
    said = caplog.messages
    assert found.exit_code == 0
    assert [one.entry.name for one in found.done] == ["mvtec", "brainmri", "colondb", "kvasir"]
    assert len(found.named("missing")) == 13
    for name in found.named("missing"):
        assert any(line.startswith(f"{name}: not found") for line in said)
    for table in suite_tables(found):
        text = table.terminal()
        assert "not found: visa, mpdd, btad" in text
        assert "not to be compared with those of complete sets" in text
        assert "mvtec_subset (mvtec, 2 of 15 classes, a part by its name)" in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 100


def test_one_table_per_level_with_the_means_of_each_domain(data: Path) -> None:
    found = run(data)
    image, pixel = suite_tables(found)
    assert image.header == ["set", "AUROC", "AP", "F1-max", "mAD"]
    assert pixel.header == ["set", "AUROC", "AP", "F1-max", "AUPRO", "mAD"]
    headings = [row[0] for row in pixel.rows if not row[0].startswith(" ")]
    assert headings == [
        "mvtec, 8 images, mean of 2 of 15 classes",
        "MEAN, industrial, 1 set",
        "colondb, 4 images",
        "kvasir, 4 images",
        "MEAN, medical, 2 sets",
    ]
    by_name = {one.entry.name: one.evaluation.detectors[0].mean for one in found.done}
    for metric, title in (("auroc", "AUROC"), ("mad", "mAD")):
        values = [by_name[name]["pixel"][metric].value for name in ("colondb", "kvasir")]
        assert column(pixel, title)["brightness"] == f"{100 * math.fsum(values) / 2:.1f}"
    mean = by_name["kvasir"]["pixel"]
    parts = [mean[key].value for key in ("auroc", "ap", "f1_max", "aupro")]
    assert mean["mad"].value == pytest.approx(math.fsum(parts) / 4)
    # A set without normal images has no place at image level.
    assert [row[0] for row in image.rows if "kvasir" in row[0] or "colondb" in row[0]] == []


def test_images_that_may_be_no_part_of_a_set_are_called_custom(data: Path) -> None:
    shutil.copy(data / "kvasir" / "images" / "0.tiff", data / "kvasir" / "images" / "4.tiff")
    shutil.copy(data / "kvasir" / "masks" / "0.tiff", data / "kvasir" / "masks" / "4.tiff")
    found = run(data)
    again = run(data)  # from the cache
    assert [one.reused for one in again.done] == [True] * 4
    for suite in (found, again):
        _, pixel = suite_tables(suite)
        rows = [row[0].strip() for row in pixel.rows]
        start = rows.index("custom: images given as kvasir, 5 images")
        assert rows[start + 1 : start + 5] == [
            "brightness", "darkness", "asymmetry", "MEAN, medical, 2 sets"
        ]  # fmt: skip
        assert not [row for row in rows[start:] if row.startswith(("published", "gain"))]
        (note,) = (note for note in pixel.notes if note.startswith("not taken for kvasir"))
        assert note.endswith("5 images, but kvasir has 4 in its test split")
        assert {row[3] for row in suite_rows(suite)} >= {"custom: images given as kvasir", "colondb"}
    document = suite_document(found)["sets"]
    assert {one["name"]: one["claimed"] for one in document if one["claimed"]}["kvasir"].startswith("custom")


def test_published_rows_stand_beside_and_headclip_is_a_gain(data: Path) -> None:
    _, pixel = suite_tables(run(data))
    rows = [row[0].strip() for row in pixel.rows]
    start = rows.index("kvasir, 4 images")
    assert rows[start + 1 : start + 4] == ["brightness", "darkness", "asymmetry"]
    assert rows[start + 4].startswith("published: AnomalyCLIP [")
    assert column(pixel, "AUROC")["published: AnomalyCLIP, same sets"] == f"{(81.9 + 78.9) / 2:.1f}"
    assert column(pixel, "AP")["published: AnomalyCLIP, same sets"] == ""
    gains = [row for row in pixel.rows if "HeadCLIP" in row[0]]
    assert {row[0].split(" [")[0] for row in gains} == {"  gain of HeadCLIP"}
    assert {row[-1] for row in gains} == {"+4.9", "+3.2"}
    assert {cell for row in gains for cell in row[1:-1]} == {""}
    assert any("trained on MVTec AD" in note and "masks published" in note for note in pixel.notes)


def test_files(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(data, "colondb,kvasir,tn3k,mvtec", out=out)
    names = {path.name for path in out.iterdir()}
    pictures = {f"suite_{level}.{suffix}" for level in ("image", "pixel") for suffix in ("png", "svg")}
    texts = {"suite.json", "suite.csv", "suite.md", "suite.tex"}
    assert names == texts | pictures | {"mvtec", "colondb", "kvasir"}
    assert (out / "kvasir" / "metrics.json").is_file()
    with (out / "suite.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == CSV_HEADER
    assert {row["kind"] for row in rows} == {"model", "reference", "published", "gain"}
    chosen = [r for r in rows if (r["set"], r["method"], r["metric"]) == ("kvasir", "brightness", "mad")]
    measured = json.loads((out / "kvasir" / "metrics.json").read_text())["detectors"][0]["mean"]["pixel"]
    assert float(chosen[0]["value"]) == pytest.approx(measured["mad"]["value"])
    document = json.loads((out / "suite.json").read_text())
    assert {one["status"] for one in document["sets"]} == {"done", "missing"}
    by_name = {one["name"]: one for one in document["sets"]}
    assert (by_name["kvasir"]["masks"], by_name["colondb"]["folder"]) == ("published", "medical/CVC-ColonDB")
    assert len(by_name["mvtec"]["classes_missing"]) == 13
    assert str(data) not in (out / "suite.json").read_text()
    for name in pictures:
        if name.endswith(".png"):
            with Image.open(out / name) as picture:
                assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_what_is_done_is_not_computed_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = module.evaluate

    def counting(samples: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(samples.name)
        return real(samples, *arguments, **options)

    monkeypatch.setattr(module, "evaluate", counting)
    first = run(data, "kvasir,brainmri")
    assert calls == ["kvasir", "brainmri"]
    again = run(data, "medical10")  # in another suite
    assert calls == ["kvasir", "brainmri", "colondb"]
    assert [one.reused for one in again.done] == [True, False, True]
    assert again.done[2].evaluation == first.done[0].evaluation
    # Another setting, another model, or another file: computed anew.
    run(data, "kvasir", EvaluationSettings(size=32, resamples=20, masks="half"))
    run(data, "kvasir", model="darkness")
    save(data / "kvasir" / "masks" / "0.tiff", np.full((36, 40), 255, np.uint8))
    run(data, "kvasir")
    run(data, "kvasir", no_cache=True)
    assert calls[3:] == ["kvasir"] * 4
    run(data, "kvasir")
    assert len(calls) == 7
    for path in (tmp_path / "cache" / "evaluations" / "results").iterdir():
        assert ".tiff" not in path.read_text()  # names of files are not kept
        path.write_text(path.read_text()[:100])
    run(data, "kvasir")  # what is cut short is not taken
    assert len(calls) == 8


def test_a_set_that_fails_is_named_and_the_others_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "medical" / "CVC-ColonDB" / "1.tiff").write_bytes(b"II*\0")
    found = run(data, "colondb,brainmri", out=tmp_path / "out")
    assert found.exit_code == 2
    assert [one.entry.name for one in found.done] == ["brainmri"]
    (failed,) = (one for one in found.sets if one.status == "failed")
    assert (failed.entry.name, "1.tiff" in failed.message) == ("colondb", True)
    assert "failed: colondb" in (tmp_path / "out" / "suite.md").read_text()
    assert not (tmp_path / "out" / "colondb").exists()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(module, "evaluate", broken)
    found = run(data, "kvasir", no_cache=True)
    assert found.exit_code == 1  # a bug of ours
    assert found.sets[0].message == "internal error, RuntimeError: out of"


def test_a_folder_without_any_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none of the sets of industrial7"):
        run(tmp_path, "industrial7")


def test_volumes_have_tables_of_their_own(
    volumes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    os.rename(volumes_root, tmp_path / "data" / "brats2013")
    found = run(tmp_path / "data", "brats2013")
    titles = [table.title for table in suite_tables(found)]
    assert [title.partition("at ")[2] for title in titles] == [
        "image level, %",
        "mean over volumes, %",
        "all voxels pooled, %",
        "lesions, %",
    ]
    save_suite(found, tmp_path / "out")
    assert (tmp_path / "out" / "suite_lesion.png").is_file()
    again = run(tmp_path / "data", "brats2013")
    assert again.sets[0].reused
    assert again.sets[0].evaluation == found.sets[0].evaluation
