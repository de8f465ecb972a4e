from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest


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
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "medzsad", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5


def test_the_main_job_does_not_wait_for_monai(tmp_path):
    """Its import takes seconds, longer than a small scan."""
    scan = Path(__file__).parents[2] / "examples" / "head_phantom.nii.gz"
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

    monkeypatch.setattr("medzsad.batch.predict_many", broken)
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
