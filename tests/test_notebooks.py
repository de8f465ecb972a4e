"""The notebooks of examples/ run from beginning to end, offline, and are stored without outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbclient (the test extra)")
EXAMPLES = Path(__file__).parents[1] / "examples"
WRITTEN = {
    "predict_and_look": "out/head_phantom_report.html",
    "evaluate_and_compare": "results/metrics.json",
}


def test_all_notebooks_are_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_stored_without_outputs(name: str) -> None:
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert [cell for cell in book.cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))  # the kernel is a process of its own
    for scan in EXAMPLES.glob("*.nii.gz"):
        shutil.copy(scan, tmp_path)
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    assert (tmp_path / WRITTEN[name]).is_file()
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert "image/png" in shown
    if name == "predict_and_look":
        assert "text/html" in shown
