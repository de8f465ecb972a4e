"""The schemas: each is printed, is one, and holds for what is really written.

The fixture ``medzsad`` checks every ``--json`` of this folder's and of ``tests/batch``'s tests against its
schema; here are the documents that no such test prints.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from cohort_factory import write_scan
from json_schemas import check_document
from report_cases import make_picture, make_volume

from medzsad.backends.records import Record, Timing
from medzsad.cli.main import run
from medzsad.cli.model_tables import time_facts
from medzsad.results.report import report
from medzsad.schemas import schema_names, schema_text

Medzsad = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", schema_names())
def test_each_is_printed_and_is_a_schema_that_requires_something(name: str, medzsad: Medzsad) -> None:
    code, out, _ = medzsad("schema", name)
    schema = json.loads(out)
    assert code == 0
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == f"medzsad {name}"
    assert not jsonschema.Draft202012Validator(schema).is_valid("a text")
    assert not jsonschema.Draft202012Validator(schema).is_valid({} if "items" not in schema else [{}])


def test_all_are_listed_and_an_unknown_one_is_refused(medzsad: Medzsad) -> None:
    assert [line.split()[0] for line in medzsad("schema")[1].splitlines()] == schema_names()
    code, out, err = medzsad("schema", "nonsense")
    assert (code, out) == (2, "")
    assert "there is no schema 'nonsense'" in err


def test_every_command_with_json_has_one() -> None:
    import click

    from medzsad.cli.main import cli

    context = click.Context(cli)
    found = set()
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        members = command.commands.items() if isinstance(command, click.Group) else [("", command)]
        for member, each in members:
            if any("--json" in parameter.opts for parameter in each.params):
                found.add("-".join(filter(None, (name, member))))
    assert found | {"report", "predict-cohort", "evaluate-suite"} == set(schema_names())


def test_reports_of_volumes_and_pictures() -> None:
    for prediction in (make_volume(), make_picture()):
        prediction.settings["roi"] = "whole"
        check_document(json.loads(json.dumps(report(prediction))), "report")


def test_a_report_without_a_field_breaks_it() -> None:
    prediction = make_volume()
    prediction.settings["roi"] = "whole"
    document = json.loads(json.dumps(report(prediction)))
    del document["lesions"][0]["peak_mm"]
    with pytest.raises(AssertionError, match=r"report: \$\.lesions\[0\]: 'peak_mm' is a required property"):
        check_document(document, "report")


def test_a_folder_and_a_cohort(tmp_path: Path, medzsad: Medzsad) -> None:
    pytest.importorskip("pyarrow")
    for seed in (0, 1):
        write_scan(tmp_path / "in" / f"{seed}.nii.gz", seed)
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"x")
    common = ("predict", tmp_path / "in", "-m", "brightness", "--overlay", "none", "--json", "-q")
    assert medzsad(*common, "-o", tmp_path / "flat")[0] == 2
    assert medzsad(*common, "-o", tmp_path / "cohort", "--jobs", 0)[0] == 2
    assert medzsad("cohort", "merge", tmp_path / "cohort", "--json")[0] == 0
    for path in (tmp_path / "flat").glob("*.json"):
        check_document(json.loads(path.read_text()), "report")


def test_times_of_backends() -> None:
    timing = Timing("torch", "fp32", {"images": 3.0}, 0.0, 0.0)
    record = Record("our", "a cpu", 2, 1, {"images": 42}, (timing, replace(timing, backend="onnx")))
    check_document(json.loads(json.dumps(time_facts(record))), "models-time")


def test_evaluations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from PIL import Image

    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "cache"))
    pixels = np.full((32, 32, 3), 60, np.uint8)
    for number in range(4):
        pixels[8:16, 8:16] = 60 + 120 * (number % 2)
        for folder, picture in (("images", pixels), ("masks", (pixels > 99)[..., 0].astype(np.uint8) * 255)):
            (tmp_path / "Kvasir-SEG" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / "Kvasir-SEG" / folder / f"{number}.png")
    more = ["-m", "brightness", "--no-references", "--resamples", "10", "--json", "-q"]
    assert run(["evaluate", "-d", "kvasir", "--root", str(tmp_path / "Kvasir-SEG"), *more]) == 0
    check_document(json.loads(capsys.readouterr().out), "evaluate")
    assert run(["evaluate", "--suite", "kvasir,brainmri", "--data", str(tmp_path), *more]) == 0
    check_document(json.loads(capsys.readouterr().out), "evaluate-suite")


def test_the_text_that_ships_is_the_text_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run(["schema", "report"])
    assert capsys.readouterr().out == schema_text("report")
