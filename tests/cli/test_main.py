from __future__ import annotations

import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from medzsad.cli.main import run


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom medzsad.cli.main import run\ncode = run(['--help'])\n"
        "heavy = {'torch', 'monai', 'numpy', 'nibabel', 'pydicom', 'open_clip'} & set(sys.modules)\n"
        "sys.exit(code or (3 if heavy else 0))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "predict" in result.stdout


def test_help_answers_at_once():
    """In processor time: other tests may run at the same time."""
    times = []
    for _ in range(3):
        start = os.times()
        subprocess.run([sys.executable, "-m", "medzsad", "--help"], check=True, capture_output=True)
        end = os.times()
        times.append(end.children_user - start.children_user + end.children_system - start.children_system)
    assert min(times) < 0.5


def test_the_main_job_does_not_wait_for_monai(tmp_path):
    """Its import takes seconds, longer than a small scan."""
    voxels = np.random.default_rng(0).normal(100, 20, (16, 16, 6)).astype(np.int16)
    scan = tmp_path / "scan.nii"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0])), scan)
    code = (
        "import sys\nfrom medzsad.cli.main import run\n"
        "code = run(['predict', sys.argv[1], '-o', sys.argv[2], '-q'])\n"
        "slow = {'monai', 'ignite', 'open_clip', 'torchvision', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "sys.exit(code or (str(slow) if slow else 0))"
    )
    command = [sys.executable, "-c", code, str(scan), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "out").iterdir())


def test_unknown_command_and_version(medzsad):
    code, _, err = medzsad("predcit")
    assert code == 2
    assert "predcit" in err
    assert medzsad("--version")[0] == 0


def test_internal_errors_are_one_line_and_exit_code_1(medzsad, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a bug\nof ours")

    monkeypatch.setattr("medzsad.batch.run.predict_many", broken)
    code, _, err = medzsad("predict", "scan.nii.gz")
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "a bug of ours" in err


@pytest.mark.parametrize(
    ("typed", "meant"), [("predcit", "predict"), ("model", "models"), ("evalute", "evaluate")]
)
def test_a_command_that_is_misspelt_is_suggested(medzsad, typed, meant):
    code, _, err = medzsad(typed, "scan.nii.gz")
    assert code == 2
    assert f"did you mean {meant}?" in err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["predict", ""], "error: an argument is empty; is a variable of your shell not set?\n"),
        (["predict", "scan.nii", "-o", ""], "error: -o is empty; is a variable of your shell not set?\n"),
        (["predict", "scan.nii", "--out="], "error: --out is empty; is a variable of your shell not set?\n"),
        (["train", "-c", " "], "error: -c is empty; is a variable of your shell not set?\n"),
    ],
)
def test_an_empty_argument_is_not_the_current_folder(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err == line


def test_a_value_that_ends_in_an_equals_sign_is_not_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "nowhere.nii", "--dicomweb-header=Authorization: Basic dTpw="]) == 2
    err = capsys.readouterr().err
    assert "is empty" not in err
    assert "dTpw" not in err
