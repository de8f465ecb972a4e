"""Recipes: those that ship, and what a wrong one is answered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.errors import BadInput
from medzsad.training.objectives import LossWeights
from medzsad.training.recipe import Validation, read_recipe
from medzsad.training.validation import IMAGE, PIXEL

CONFIGS = Path(__file__).parents[2] / "configs"
SMOKE = CONFIGS / "smoke.yaml"
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes lines after a valid beginning of three lines."""

    def make(text: str) -> Path:
        path = tmp_path / "own.yaml"
        path.write_text(f"name: own\nmethod: headclip\ndetector: {{image_size: 70}}\n{text}\n")
        return path

    return make


DATA = "data: [{dataset: mvtec}]\n"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_survives_being_written(path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem.replace("_", "-")
    (tmp_path / "again.yaml").write_text(recipe.as_yaml())
    again = read_recipe(tmp_path / "again.yaml")
    assert again == recipe
    assert again.digest() == recipe.digest()


def test_the_published_settings() -> None:
    headclip = read_recipe(CONFIGS / "headclip_mvtec.yaml")
    adaclip = read_recipe(CONFIGS / "adaclip_mvtec_colondb.yaml")
    optimiser = headclip.optimiser
    assert (optimiser.name, optimiser.lr, optimiser.betas) == ("adam", 1e-3, (0.5, 0.999))
    assert (headclip.epochs, headclip.batch_size, headclip.seed) == (15, 8, 111)
    assert (headclip.loss.image, headclip.loss.pixel) == (1, 4)
    assert headclip.detector == HeadCLIPSettings()
    assert [(s.dataset, s.split) for s in headclip.data] == [("mvtec", "test")]
    assert (adaclip.optimiser.name, adaclip.optimiser.lr, adaclip.epochs) == ("adamw", 0.01, 5)
    assert (adaclip.batch_size, adaclip.loss.pixel, adaclip.augmentation.mosaic) == (1, 1, 0.2)
    assert [(s.dataset, s.mosaic) for s in adaclip.data] == [("mvtec", None), ("colondb", 0)]
    assert adaclip.detector == AdaCLIPSettings()
    for name, other in (("mvtec_colondb", "visa"), ("visa_clinicdb", "mvtec")):
        recipe = read_recipe(CONFIGS / f"adaclip_{name}.yaml")
        assert recipe.loss == LossWeights.of_method("adaclip") == LossWeights(pixel=1, dice="rows")
        assert [(s.dataset, s.split, s.limit) for s in recipe.validation.data] == [(other, "test", None)]
        assert (recipe.validation.metric, recipe.validation.every) == ("pixel_f1_max", 1)
        assert recipe.augmentation.mosaic_label == "drawn"
        assert {s.split for s in recipe.data} == {"test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            DATA + "epoch: 3",
            r"own.yaml:5: unknown key 'epoch' \(did you mean 'epochs'\?\); allowed: name,",
        ),
        (DATA + "epochs: many", "own.yaml:5: expected a whole number, got 'many'"),
        (DATA + "epochs: 1.5", "own.yaml:5: expected a whole number, got '1.5'"),
        (DATA + "epochs: 0", "own.yaml:5: epochs must be at least 1, not 0"),
        (DATA + "deterministic: 1", "own.yaml:5: expected true or false, got '1'"),
        (DATA + "precision: fp8", "own.yaml:5: expected one of fp32, tf32, bf16, fp16, got 'fp8'"),
        (DATA + "optimiser:\n  lr: fast", "own.yaml:6: expected a number, got 'fast'"),
        (DATA + "optimiser:\n  lr: nan", "own.yaml:6: expected a finite number"),
        (DATA + "optimiser:\n  lr: 1e-3\n  lrr: 1", "own.yaml:7: unknown key 'lrr'"),
        (DATA + "optimiser:\n  lr: 1e-3\n  betas: [0.9]", "own.yaml:7: expected a list of 2 values, got 1"),
        (DATA + "optimiser:\n  betas: [0.9, 1]", r"own.yaml:6: betas must lie in \[0, 1\)"),
        (DATA + "optimiser: adam", "own.yaml:5: expected keys and values .*got 'adam'"),
        (DATA + "loss:\n  pixel: -1", "own.yaml:6: loss weight pixel"),
        (DATA + "augmentation:\n  flip_vertical: 0\n  mosaic: 3", "own.yaml:7: augmentation mosaic"),
        (DATA + "loss:\n  dice: pixel", "own.yaml:6: expected one of image, rows, got 'pixel'"),
        (DATA + "augmentation:\n  mosaic_label: max", "own.yaml:6: expected one of drawn, any, got 'max'"),
        (DATA + "validation:\n  metric: f1", "own.yaml:6: expected one of mad, .*pixel_f1_max.*, got 'f1'"),
        (DATA + "focal_alpha: high", "own.yaml:5: expected a list or .*balanced.*, got 'high'"),
        (DATA + "epochs: 2\nepochs: 3", "own.yaml:6: 'epochs' is given twice"),
        (DATA + "epochs: [", "own.yaml:.*not valid YAML"),
        ("data:\n  - dataset: mvtek", "own.yaml:5: dataset: unknown data set 'mvtek'"),
        ("data:\n  - dataset: mvtec\n    limit: none", "own.yaml:6: expected a whole number, got 'none'"),
        ("data:\n  - root: /x", "own.yaml:5: 'dataset' is missing"),
        ("data: []", "own.yaml:4: data must hold at least one data set"),
        ("data: mvtec", "own.yaml:4: expected a list of values, got 'mvtec'"),
        ("epochs: 3", "own.yaml:1: 'data' is missing"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(write: Write, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_recipe(write(text))
    assert "\n" not in str(caught.value)


def test_settings_are_checked_for_the_method(write: Write) -> None:
    with pytest.raises(BadInput, match=r"unknown key 'vv_start'.*allowed: .*output_layers"):
        read_recipe(SMOKE, ["method=adaclip", "detector={vv_start: 3}"])
    with pytest.raises(BadInput, match="expected one of headclip, anomalyclip, adaclip, got 'mini'"):
        read_recipe(SMOKE, ["method=mini"])


def test_overrides() -> None:
    recipe = read_recipe(
        SMOKE,
        [
            "optimiser.lr=1e-4",
            "data.0.classes=[01, weave]",
            "data.0.limit=",
            "data.1={dataset: mvtec, weight: 0.5}",
            "optimiser.group_lr.head_weights=0.1",
            "detector.backbone.vision_cfg.layers=2",
        ],
    )
    assert recipe.optimiser.lr == 1e-4
    assert recipe.data[0].classes == ("01", "weave")  # the name, not the number
    assert recipe.data[0].limit is None
    assert recipe.data[1].weight == 0.5
    assert recipe.optimiser.group_lr.head_weights == 0.1
    assert recipe.optimiser.group_lr.prompts is None
    assert recipe.detector.backbone["vision_cfg"]["layers"] == 2
    assert recipe.epochs == read_recipe(SMOKE).epochs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimiser.lr=fast", "override 'optimiser.lr=fast': expected a number, got 'fast'"),
        ("optimiser.lrr=1", r"override 'optimiser.lrr=1': unknown key 'lrr' \(did you mean 'lr'\?\)"),
        ("data.7.root=/x", "override 'data.7.root=/x': nothing there has a key '7'"),
        ("epochs", "override 'epochs': expected key=value"),
        ("epochs.1=2", "override 'epochs.1=2': nothing there has a key '1'"),
    ],
)
def test_a_wrong_override_is_named(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_recipe(SMOKE, [text])


def test_the_pixel_losses_weigh_what_the_method_publishes() -> None:
    ada = ["method=adaclip", "detector={}"]
    assert read_recipe(SMOKE).loss.pixel == 4
    assert read_recipe(SMOKE, ada).loss.pixel == 1
    assert read_recipe(SMOKE, [*ada, "loss={image: 2}"]).loss.pixel == 1
    assert read_recipe(SMOKE, [*ada, "loss={pixel: 3}"]).loss.pixel == 3


def test_dice_is_of_rows_where_it_was_published_so() -> None:
    ada = ["method=adaclip", "detector={image_size: 70}"]
    assert read_recipe(SMOKE).loss.dice == "image"
    assert read_recipe(SMOKE, ["loss.dice=rows"]).loss.dice == "rows"
    assert read_recipe(SMOKE, [*ada, "loss={image: 2}"]).loss.dice == "rows"
    assert read_recipe(SMOKE, [*ada, "loss.dice=image"]).loss == LossWeights(pixel=1, dice="image")


def test_every_figure_of_a_validation_can_choose() -> None:
    for metric in ("mad", *IMAGE, *PIXEL):
        assert read_recipe(SMOKE, [f"validation.metric={metric}"]).validation.metric == metric
    assert set(get_args(get_type_hints(Validation)["metric"])) == {"mad", *IMAGE, *PIXEL}


def test_what_cannot_change_the_outcome_is_not_compared() -> None:
    recipe = read_recipe(SMOKE)
    same = read_recipe(SMOKE, ["workers=2", "checkpoint_every=1", "data.0.root=/x", "log_every=1"])
    other = read_recipe(SMOKE, ["data.0.weight=2", "seed=5"])
    assert recipe.digest() == same.digest()
    assert recipe.differences(same) == []
    assert recipe.digest() != other.digest()
    assert recipe.differences(other) == ["data.0.weight", "seed"]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml: no such file"):
        read_recipe(tmp_path / "none.yaml")


def test_roots_by_name(tmp_path: Path) -> None:
    recipe = read_recipe(SMOKE).with_roots({"synthetic": str(tmp_path)})
    assert recipe.data[0].root == recipe.validation.data[0].root == str(tmp_path)
    with pytest.raises(BadInput, match="uses no data set 'visa'; it uses synthetic"):
        recipe.with_roots({"visa": "/x"})
