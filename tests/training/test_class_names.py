"""A run, its validation, its evaluation and its predictions call classes the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from medzsad.cli.main import run as medzsad
from medzsad.datasets.opening import open_dataset
from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.errors import BadInput, MedzsadError
from medzsad.evaluation.evaluate import evaluate
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.training.recipe import read_recipe
from medzsad.training.sources import OpenedSource, open_source
from medzsad.training.synthetic_set import make_synthetic_set
from medzsad.training.train import train
from medzsad.training.training_set import InputFormat, TrainingSet
from medzsad.zoo.loading import load_detector

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.yaml"
SIDE = 28
CLIP = (
    "{embed_dim: 32, vision_cfg: {image_size: 28, layers: 2, width: 64, head_width: 32, patch_size: 14}, "
    "text_cfg: {context_length: 77, vocab_size: 49408, width: 32, heads: 2, layers: 3}}"
)


@dataclass
class Trained:
    """A finished run, and the images that it was validated with."""

    folder: Path
    images: Path


@pytest.fixture(scope="module", params=["S", "SD"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """AdaCLIP with static prompts, whose texts are finished, or dynamic ones, whose texts each image has."""
    root = tmp_path_factory.mktemp("adaclip")
    images = make_synthetic_set(root / "images", 10, split="valid")
    detector = (
        f"detector={{backbone: {CLIP}, clip_weights: null, image_size: {SIDE}, prompt_depth: 2, "
        f"prompt_length: 2, clusters: 2, prompt_type: {request.param}}}"
    )
    changes = [detector, "method=adaclip", "data.0.limit=4", "batch_size=1", "epochs=1", "optimiser.lr=0.01"]
    recipe = read_recipe(SMOKE, [*changes, f"validation.data=[{{dataset: folder, root: {images}}}]"])
    train(recipe, root / "run", device="cpu")
    return Trained(root / "run", images)


def score(detector: AnomalyDetector) -> float:
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return float(detector(images).image_score)


def test_validation_and_evaluation_of_a_run_agree(trained: Trained) -> None:
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    (validated,) = metrics["validations"][-1]["validation"].values()
    detector = load_detector(trained.folder, device="cpu", precision="fp32")
    samples = open_dataset("folder", trained.images)
    assert samples.classes == ("grain", "weave")
    settings = EvaluationSettings(size=SIDE, mode="histogram", resamples=0)
    outcome = evaluate(samples, [detector], settings, references=()).detectors[0]
    assert outcome.settings["class_name"] == {"grain": "grain", "weave": "weave"}
    for level in ("image", "pixel"):
        for name in ("auroc", "ap", "f1_max", "mad"):
            found = outcome.mean[level][name].value
            assert found == pytest.approx(validated[f"{level}_{name}"], abs=2e-4), (level, name)
    unnamed = EvaluationSettings(size=SIDE, mode="histogram", resamples=0, class_name="object")
    other = evaluate(samples, [detector], unnamed, references=()).detectors[0]
    assert other.mean["pixel"]["ap"].value != outcome.mean["pixel"]["ap"].value


def test_a_run_folder_takes_another_class(trained: Trained) -> None:
    lines: list[str] = []
    options = {"device": "cpu", "precision": "fp32", "say": lines.append}
    plain = load_detector(trained.folder, **options)
    assert not lines
    assert load_detector(trained.folder, class_name="grain", **options).class_name == "grain"
    assert not lines
    named = load_detector(trained.folder, class_name="metal_nut", **options)
    assert [line for line in lines if "'metal_nut'" in line and "grain, weave" in line] == lines
    assert len(lines) == 1
    organ = load_detector(trained.folder, organ="brain/mr", **options)
    assert organ.settings["class_name"] == organ.class_name == "brain MRI"
    assert len({score(plain), score(named), score(organ)}) == 3
    assert score(plain.for_classes(["metal_nut"])["metal_nut"]) == pytest.approx(score(named), abs=1e-6)
    with pytest.raises(BadInput, match="unknown organ 'tail'"):
        load_detector(trained.folder, organ="tail", **options)
    for name in ("", " - ", "very " * 90 + "long"):
        with pytest.raises(MedzsadError, match=r"class.name"):
            load_detector(trained.folder, class_name=name, **options)
        with pytest.raises(MedzsadError, match=r"class.name"):
            plain.for_classes([name])


def test_predict_says_that_a_class_is_new(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((trained.images / "grain" / "test" / "blob").iterdir())
    found = {}
    for options in ((), ("--class-name", "grain"), ("--organ", "brain/mr")):
        command = ["predict", image, "-m", trained.folder, "-o", tmp_path, "--json", "--overlay", "none"]
        assert medzsad([str(word) for word in (*command, *options)]) == 0
        captured = capsys.readouterr()
        found[options] = json.loads(captured.out)["scans"][0]
        assert ("which they did not in training" in captured.err) == ("--organ" in options)
        assert "Traceback" not in captured.err
    names = [one["settings"]["detector"]["class_name"] for one in found.values()]
    assert names == ["object", "grain", "brain MRI"]
    assert len({one["score"] for one in found.values()}) == 3


def test_training_names_classes_as_evaluations_do(tmp_path: Path) -> None:
    root = make_synthetic_set(tmp_path / "images", 8)

    def opened(dataset: str, folder: Path) -> OpenedSource:
        recipe = read_recipe(SMOKE, [f"data=[{{dataset: {dataset}, root: {folder}}}]"])
        return open_source(recipe.data[0], tmp_path, side=SIDE)

    def names(source: OpenedSource, method: str) -> set[str]:
        inputs = InputFormat(SIDE, torch.zeros(3, 1, 1), torch.ones(3, 1, 1), method)
        images = TrainingSet([source], inputs)
        return {images[index]["class_name"] for index in range(len(images))}

    assert names(opened("mvtec", root), "adaclip") == {"grain", "weave"}
    colon = opened("colondb", root / "grain")
    assert names(colon, "adaclip") == {"ColonDB"}
    assert names(colon, "winclip") == {"colon"}
    assert colon.facts("adaclip")["class_names"] == ["ColonDB"]
    assert "class_names" not in colon.facts("headclip")


def test_the_adapter_tells_what_its_texts_named(trained: Trained) -> None:
    (facts,) = read_checkpoint(trained.folder / "adapter.safetensors").training["data"]
    assert facts["class_names"] == ["grain", "weave"]
    detector = load_detector(trained.folder, device="cpu", precision="fp32")
    assert detector.seen_classes == ("grain", "weave")
