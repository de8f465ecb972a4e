"""Profiles of a few normal samples: what is drawn, what is left out, and means over draws."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from normal_images import save, save_volume, texture, with_blob

from medzsad.datasets.opening import DatasetQuery
from medzsad.errors import BadInput
from medzsad.evaluation.command import run_evaluation
from medzsad.evaluation.few_normals import FewNormals, _mean_figure, draw_normals
from medzsad.evaluation.outcome import Figure
from medzsad.evaluation.reporting import comparison, document, plain_rows
from medzsad.evaluation.settings import EvaluationSettings, RunSettings
from medzsad.evaluation.tables import csv_text


@pytest.fixture
def query(tmp_path: Path) -> DatasetQuery:
    """Two classes in MVTec layout, 4 normal and 2 anomalous images each, all for testing."""
    for name, offset in (("bottle", 20), ("cable", 40)):
        for number in range(6):
            image = texture(number + offset)
            if number < 4:
                save(tmp_path / name / "test" / "good" / f"{number}.png", image)
            else:
                image, mask = with_blob(image)
                save(tmp_path / name / "test" / "blob" / f"{number}.png", image)
                save(tmp_path / name / "ground_truth" / "blob" / f"{number}_mask.png", mask * 255.0)
    return DatasetQuery("mvtec", tmp_path)


def test_what_was_drawn_is_left_out_of_the_test(query: DatasetQuery) -> None:
    few, samples = FewNormals(shots=(2, 1), draws=2), query.open()
    drawn = draw_normals(few, query, samples)
    assert drawn.shots == (1, 2)
    used = {normal.image for draw in drawn.normals for found in draw.values() for normal in found}
    assert all(normal.label == 0 for draw in drawn.normals for found in draw.values() for normal in found)
    assert used.isdisjoint(sample.image for sample in drawn.samples)
    assert len(drawn.samples) + len(used) == len(samples)
    assert f"{len(used)} samples were drawn as normals" in " ".join(drawn.samples.notes)
    again = draw_normals(few, query, samples)
    assert again.normals == drawn.normals
    assert draw_normals(FewNormals(shots=(2,), draws=2, seed=1), query, samples).normals != drawn.normals
    for draw in drawn.normals:
        assert set(draw) == {"bottle", "cable"}
        assert all(normal.class_name == name for name, found in draw.items() for normal in found)


def test_training_images_come_first_and_nothing_is_left_out(query: DatasetQuery) -> None:
    root = Path(str(query.root))
    for name in ("bottle", "cable"):
        for number in range(2):
            save(root / name / "train" / "good" / f"{number}.png", texture(number + 70))
    drawn = draw_normals(FewNormals(shots=(2,), draws=1), query, query.open())
    assert all("train" in normal.image.parts for normal in drawn.normals[0]["bottle"])
    assert len(drawn.samples) == 12


def test_normals_of_a_folder(query: DatasetQuery, tmp_path: Path) -> None:
    samples, folder = query.open(), tmp_path / "normals"
    with pytest.raises(BadInput, match="a folder for each"):
        draw_normals(FewNormals(source=str(folder)), query, samples)
    for name in ("bottle", "cable"):
        for number in range(2):
            save(folder / name / f"{number}.png", texture(number + 80))
    (folder / "bottle" / "own.png").symlink_to(samples[0].image)
    (folder / "cable" / "own.png").symlink_to(samples[11].image)
    drawn = draw_normals(FewNormals(source=str(folder)), query, samples)
    assert (drawn.shots, len(drawn.normals)) == ((3,), 1)  # all of them, once
    assert len(drawn.samples) == 10  # without those that are links to the set's own


def test_too_many_are_refused(query: DatasetQuery) -> None:
    samples = query.open()
    with pytest.raises(BadInput, match="has 4 normal samples to draw from"):
        draw_normals(FewNormals(shots=(5,)), query, samples)
    with pytest.raises(BadInput, match="no normal sample would be left"):
        draw_normals(FewNormals(shots=(4,)), query, samples)
    for shots in ((), (0,)):
        with pytest.raises(BadInput, match="shots"):
            FewNormals(shots=shots)


def test_normal_volumes_are_those_with_an_empty_label(tmp_path: Path) -> None:
    import nibabel
    import numpy as np

    for number in range(4):
        save_volume(tmp_path / f"case{number}" / "image.nii.gz", number)
        label = np.zeros((48, 48, 4), np.uint8)
        label[10:20, 10:20, 1] = number > 1
        nibabel.Nifti1Image(label, np.diag([1.0, 1.0, 3.0, 1.0])).to_filename(
            tmp_path / f"case{number}" / "label.nii.gz"
        )
    query = DatasetQuery("volumes", tmp_path)
    drawn = draw_normals(FewNormals(shots=(2,), draws=1), query, query.open())
    (found,) = drawn.normals[0].values()
    assert sorted(normal.image.parent.name for normal in found) == ["case0", "case1"]
    assert len(drawn.samples) == 2


def test_rows_are_means_over_draws(query: DatasetQuery) -> None:
    settings, run = EvaluationSettings(size=64, resamples=0), RunSettings(references=(), no_cache=True)
    few = FewNormals(shots=(1,), draws=2)
    evaluation = run_evaluation(query, ["brightness"], settings, run, few=few)
    assert [d.name for d in evaluation.detectors] == ["brightness", "brightness + 1 normal"]
    both = evaluation.detectors[1]
    assert not both.zero_shot
    assert both.settings["shots"] == 1
    figure = both.mean["pixel"]["auroc"]
    assert figure.value is not None
    assert figure.value > 0.8
    assert figure.spread is not None
    assert [one.name for one in both.classes] == ["bottle", "cable"]
    text = comparison(evaluation, "pixel").terminal()
    assert "over draws" in text
    assert "shown normal ones" in text
    stored = document(evaluation)["detectors"][1]["mean"]["pixel"]["auroc"]
    assert stored["spread"] == figure.spread
    written = csv.DictReader(io.StringIO(csv_text(*plain_rows(evaluation))))  # as metrics.csv
    rows = [row for row in written if (row["level"], row["metric"]) == ("pixel", "auroc")]
    spreads = {(row["detector"], row["class"]): row["spread"] for row in rows}
    of_class = [one.figures["pixel"]["auroc"].spread for one in both.classes]
    assert spreads == {
        **{("brightness", name): "" for name in ("bottle", "cable", "mean")},  # nothing was drawn for it
        **{(both.name, "bottle"): str(of_class[0]), (both.name, "cable"): str(of_class[1])},
        (both.name, "mean"): str(figure.spread),
    }


def test_mean_and_spread() -> None:
    figure = _mean_figure([Figure(0.5), Figure(0.7)])
    assert figure.value == pytest.approx(0.6)
    assert figure.spread == pytest.approx(0.02**0.5)
    alone = Figure(0.5, interval=(0.4, 0.6))
    assert _mean_figure([alone]) is alone
    assert _mean_figure([alone, Figure.undefined("none")]).reason == "none"
