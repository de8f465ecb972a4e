"""The thread that predicts: it stops in the middle, and tells bugs without telling of the scan."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from serve_process import write_scan

import medzsad
from medzsad.batch.predictor import PredictSettings
from medzsad.detectors.references import Brightness
from medzsad.integrations.server.models import DetectorPool
from medzsad.integrations.server.predictions import CANCELLED, DONE, FAILED, Prediction, Predictions
from medzsad.integrations.server.uploads import Upload
from medzsad.integrations.server.worker import Worker


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Counts batches, as ``count``, and calls ``before`` with the number of each."""
    seen = SimpleNamespace(count=0, before=lambda number: None)
    detect = Brightness.detect

    def counted(self: Brightness, inputs: Any) -> Any:
        seen.count += 1
        seen.before(seen.count)
        return detect(self, inputs)

    monkeypatch.setattr(Brightness, "detect", counted)
    return seen


def waiting(tmp_path: Path, queue: Predictions) -> Prediction:
    upload = Upload(tmp_path / "private" / "upload", 1e9)
    upload.folder.mkdir(parents=True)
    upload.create("Doe.nii").write_bytes(write_scan(tmp_path / "x.nii").read_bytes())
    upload.find_scan()
    settings = PredictSettings(model="brightness", batch_size=1, overlay="none")
    prediction = Prediction(upload.folder.parent, upload, settings)
    queue.add(prediction)
    return prediction


def work(queue: Predictions) -> None:
    """Do the one that waits."""
    prediction = queue.take()
    assert prediction is not None
    Worker(queue, DetectorPool(1))._do(prediction)


def test_a_scan_is_done_and_its_upload_goes(tmp_path: Path, batches: SimpleNamespace) -> None:
    queue = Predictions(4, 60)
    prediction = waiting(tmp_path, queue)
    work(queue)
    assert (prediction.status, prediction.error) == (DONE, None)
    assert prediction.progress() == {"done": batches.count, "total": batches.count, "phase": DONE}
    assert sorted(prediction.files) == ["scan.json", "scan_anomaly.nii.gz", "scan_mask.nii.gz"]
    assert not prediction.upload.folder.exists()


def test_no_further_slice_is_predicted_once_it_is_deleted(tmp_path: Path, batches: SimpleNamespace) -> None:
    queue = Predictions(4, 60)
    prediction = waiting(tmp_path, queue)
    batches.before = lambda number: queue.delete(prediction) if number == 2 else None
    work(queue)
    assert batches.count == 2 < prediction.total
    assert prediction.status == CANCELLED
    assert not prediction.folder.exists()


def test_what_is_written_after_it_was_deleted_goes_too(tmp_path: Path, monkeypatch: Any) -> None:
    queue = Predictions(4, 60)
    prediction = waiting(tmp_path, queue)
    save = medzsad.ScanPrediction.save

    def late(self: Any, folder: Path, **options: Any) -> Any:
        queue.delete(prediction)
        return save(self, folder, **options)

    monkeypatch.setattr(medzsad.ScanPrediction, "save", late)
    work(queue)
    assert prediction.status == CANCELLED
    assert not prediction.folder.exists()


def test_a_bug_is_told_to_the_client_and_logged_without_its_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, batches: SimpleNamespace
) -> None:
    def break_down(number: int) -> None:
        raise ZeroDivisionError("of Jane Doe")

    queue = Predictions(4, 60)
    prediction = waiting(tmp_path, queue)
    batches.before = break_down
    logging.getLogger("medzsad.serve").propagate = True
    with caplog.at_level(logging.INFO, "medzsad.serve"):
        work(queue)
    assert (prediction.status, prediction.fault) == (FAILED, "internal")
    assert prediction.error == "internal error: ZeroDivisionError: of Jane Doe"
    assert "ZeroDivisionError at test_worker.py" in caplog.text
    assert "Doe" not in caplog.text


def test_an_option_that_does_not_fit_is_the_inputs_fault(tmp_path: Path) -> None:
    queue = Predictions(4, 60)
    prediction = waiting(tmp_path, queue)
    prediction.settings = replace(prediction.settings, window="brain")
    prediction.upload.source.write_bytes(b"changed")
    work(queue)
    assert (prediction.status, prediction.fault) == (FAILED, "input")
    assert prediction.error is not None
    assert prediction.error.startswith("Doe.nii is not a readable NIfTI file")
