from __future__ import annotations

import subprocess
import sys
import time


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


def test_unknown_command_and_version(medzsad):
    code, _, err = medzsad("predcit")
    assert code == 2
    assert "predcit" in err
    assert medzsad("--version")[0] == 0


def test_internal_errors_are_one_line_and_exit_code_1(medzsad, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a bug\nof ours")

    monkeypatch.setattr("medzsad.cohort.predict_many", broken)
    code, _, err = medzsad("predict", "scan.nii.gz")
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "a bug of ours" in err
