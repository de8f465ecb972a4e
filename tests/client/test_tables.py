"""The tables of scans that a server predicted are those of ``medzsad predict``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from jsonschema import validate
from serve_process import ServeProcess, write_scan

from medzsad.cli.main import run
from medzsad.schemas import schema_text


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{**row, "settings": ""} for row in csv.DictReader(file)]


def test_several_scans_have_the_tables_of_the_command_line(
    server: ServeProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, local, remote = tmp_path / "DOE", tmp_path / "local", tmp_path / "remote"
    scans.mkdir()
    for seed, name in enumerate(("a", "b")):
        write_scan(scans / f"{name}.nii.gz", seed)
    (scans / "broken.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:500])
    inputs = [str(scans), str(tmp_path / "DOE/gone.nii.gz")]
    there = ["--server", server.url, "--token-file", str(server.log.parent / "token")]
    assert run(["predict", *inputs, "-o", str(local), "--quiet"]) == 2
    assert run(["predict", *inputs, "-o", str(remote), "--quiet", "--json", *there]) == 2
    document = json.loads(capsys.readouterr().out)
    validate(document, json.loads(schema_text("predict")))
    assert document["tables"] == {kind: str(remote / f"{kind}.csv") for kind in ("scores", "lesions")}
    assert (remote / "lesions.csv").read_bytes() == (local / "lesions.csv").read_bytes()
    assert rows(remote / "scores.csv") == rows(local / "scores.csv")
    assert len(rows(remote / "scores.csv")) == 4
    assert "DOE" not in (remote / "scores.csv").read_text()

    # Of one of these scans alone they would tell what is no longer so.
    assert run(["predict", str(scans / "a.nii.gz"), "-o", str(remote), "--quiet", "--json", *there]) == 0
    assert json.loads(capsys.readouterr().out)["tables"] is None
    assert not list(remote.glob("*.csv"))

    (remote / "scores.csv").write_text("mine\n")
    assert run(["predict", str(scans), "-o", str(remote), "--quiet", *there]) == 2
    assert "scores.csv was not written by medzsad" in capsys.readouterr().err
    assert (remote / "scores.csv").read_text() == "mine\n"
