"""Settings: what is accepted, and what a wrong one is answered with, from Python, plain values and YAML."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from medzsad.errors import BadInput, ModelNotReady
from medzsad.settings import DetectorSpec, Settings, compose_file, override, read_node


class Rates(Settings):
    lr: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)

    def __post_init__(self) -> None:
        if max(self.betas) >= 1:
            raise BadInput(f"betas must be below 1, not {list(self.betas)}")


class Source(Settings):
    name: str
    classes: tuple[str, ...] | None = None


class Run(Settings):
    epochs: int = Field(3, ge=1)
    exact: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    alpha: tuple[float, float] | Literal["balanced"] | None = None
    backbone: str | dict[str, Any] = "small"
    rates: Rates = field(default_factory=Rates)
    data: tuple[Source, ...] = ()


class Strange(Settings, refusal=ModelNotReady):
    side: int = 3


def read(tmp_path: Path, text: str, *overrides: str) -> Run:
    path = tmp_path / "own.yaml"
    path.write_text(text + "\n")
    root = compose_file(path)
    for each in overrides:
        override(root, each)
    return read_node(root, Run)


def test_values_of_a_file_become_what_the_fields_say(tmp_path: Path) -> None:
    run = read(
        tmp_path,
        "epochs: 4\nalpha: [1, 0.5]\nrates: {lr: 1e-4}\n"
        "backbone: {layers: [1, 2], scale: 1e-3}\ndata: [{name: 01, classes: [1e3, nan, a]}]",
    )
    assert run == Run(
        epochs=4,
        alpha=(1, 0.5),
        rates=Rates(lr=1e-4),
        backbone={"layers": [1, 2], "scale": 1e-3},
        data=(Source("01", classes=("1e3", "nan", "a")),),
    )
    assert isinstance(run.alpha[0], float)


def test_they_are_frozen_dataclasses_and_survive_json_and_pickle() -> None:
    run = Run(data=(Source("a", ("b",)),))
    assert Run.from_dict(json.loads(json.dumps(run.as_dict()))) == run
    assert pickle.loads(pickle.dumps(run)) == run
    assert asdict(run)["data"] == ({"name": "a", "classes": ("b",)},)
    assert replace(run, epochs=5).epochs == 5
    with pytest.raises(AttributeError):
        run.epochs = 5
    with pytest.raises(BadInput, match="epochs must be at least 1, not 0"):
        replace(run, epochs=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "exact: true\nepoch: 3",
            r"own.yaml:2: unknown key 'epoch' \(did you mean 'epochs'\?\); allowed: epochs,",
        ),
        ("epochs: 1.0", "own.yaml:1: expected a whole number, got '1.0'"),
        ("epochs: true", "own.yaml:1: expected a whole number, got 'true'"),
        ("epochs:", "own.yaml:1: expected a whole number, got nothing"),
        ("epochs: 0", "own.yaml:1: epochs must be at least 1, not 0"),
        ("exact: 1", "own.yaml:1: expected true or false, got '1'"),
        ("precision: fp8", "own.yaml:1: expected one of fp32, bf16, got 'fp8'"),
        ("rates:\n  lr: .inf", "own.yaml:2: expected a number, got '.inf'"),
        ("rates:\n  lr: inf", "own.yaml:2: expected a finite number, got 'inf'"),
        ("rates:\n  lr: 0", "own.yaml:2: lr must be above 0, not 0"),
        ("rates:\n  lr: 1\n  betas: [1]", "own.yaml:3: expected a list of 2 values, got 1"),
        ("rates:\n  lr: 1\n  betas: [0, 0, 0]", "own.yaml:3: expected a list of 2 values, got 3"),
        ("rates:\n  lr: 1\n  betas: [0, 1]", "own.yaml:3: betas must be below 1"),
        ("rates: adam", r"own.yaml:1: expected keys and values \(lr, betas\), got 'adam'"),
        ("alpha: high", "own.yaml:1: expected a list or one of balanced, got 'high'"),
        ("backbone: [1]", "own.yaml:1: expected a text or keys and values, got a list"),
        ("data: a", "own.yaml:1: expected a list of values, got 'a'"),
        ("data:\n  - {name: a}\n  - {name: }", "own.yaml:3: expected a text, got nothing"),
        ("data:\n  - {name: a}\n  - {nam: b}", r"own.yaml:3: unknown key 'nam' \(did you mean 'name'\?\)"),
        ("data:\n  - classes: [a]", "own.yaml:2: 'name' is missing; add it"),
        ("epochs: 2\nepochs: 3", "own.yaml:2: 'epochs' is given twice"),
        ("epochs: 0x1F", "own.yaml:1: expected a whole number, got '0x1F'"),
        (f"epochs: {'9' * 5000}", "own.yaml:1: expected a whole number, got '999"),
    ],
)
def test_a_wrong_value_of_a_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_overrides(tmp_path: Path) -> None:
    text = "epochs: 2\nrates: {lr: 1}\ndata: [{name: a}]"
    run = read(tmp_path, text, "epochs=5", "rates.betas=[0, 0.5]", "data.0.classes=[01]", "data.1={name: b}")
    assert (run.epochs, run.rates.betas) == (5, (0, 0.5))
    assert run.data == (Source("a", ("01",)), Source("b"))
    assert read(tmp_path, text, "alpha=balanced", "alpha=").alpha is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs=many", "override 'epochs=many': expected a whole number, got 'many'"),
        ("rates.lrr=1", r"override 'rates.lrr=1': unknown key 'lrr' \(did you mean 'lr'\?\)"),
        ("data.7.name=x", "override 'data.7.name=x': nothing there has a key '7'"),
        ("epochs", "override 'epochs': expected key=value"),
        ("a..b=1", "override 'a..b=1': expected key=value"),
        ("epochs.1=2", "override 'epochs.1=2': nothing there has a key '1'"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read(tmp_path, "epochs: 2\ndata: []", text)


def test_plain_values_and_python_get_one_line_of_the_class() -> None:
    with pytest.raises(ModelNotReady, match=r"^unknown Strange settings: sid \(did you mean 'side'\?\)"):
        Strange.from_dict({"sid": 3})
    with pytest.raises(ModelNotReady, match=r"^Strange settings: side: expected a whole number, got 'x'$"):
        Strange.from_dict({"side": "x"})
    with pytest.raises(BadInput, match=r"^Run settings: data\.0\.name: expected a text, got 3$"):
        Run.from_dict({"data": [{"name": 3}]})
    with pytest.raises(BadInput, match=r"^Run settings: precision: expected one of fp32, bf16, got 'fp8'$"):
        Run(precision="fp8")
    with pytest.raises(BadInput, match=r"^Rates settings: betas must be below 1"):
        Rates(betas=(0, 1))


def test_a_file_that_holds_no_keys(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(BadInput, match=r"list\.yaml: expected keys and values"):
        compose_file(tmp_path / "list.yaml")


def test_a_detector_is_asked_for_by_words() -> None:
    assert DetectorSpec("mini", organ="brain") == DetectorSpec.from_dict({"model": "mini", "organ": "brain"})
    with pytest.raises(ModelNotReady, match="DetectorSpec settings: organ: expected a text, got 3"):
        DetectorSpec(organ=3)
