"""The queue of a server, and how long it remembers."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from medzsad.batch.predictor import PredictSettings
from medzsad.integrations.server.predictions import (
    CANCELLED,
    DONE,
    MOST_KEPT,
    Prediction,
    Predictions,
    QueueFull,
    media_type,
)
from medzsad.integrations.server.uploads import Upload


def prediction_in(folder: Path) -> Prediction:
    folder.mkdir()
    return Prediction(folder, Upload(folder / "upload", 1e6), PredictSettings())


def test_first_come_first_served_and_the_newest_is_listed_first(tmp_path: Path) -> None:
    queue = Predictions(4, 60)
    first, second = (prediction_in(tmp_path / name) for name in "ab")
    queue.add(first)
    queue.add(second)
    assert queue.listed() == [second, first]
    assert queue.take() is first
    assert first.status == "running"
    assert queue.waiting() == 1


def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    queue = Predictions(2, 60)
    queue.add(prediction_in(tmp_path / "a"))
    with queue.place():
        assert queue.waiting() == 2
        with pytest.raises(QueueFull, match="try again in") as full, queue.place():
            pass
        assert 1 <= full.value.retry_after <= 60
    with queue.place():
        pass


def test_a_waiting_one_that_is_deleted_is_never_taken(tmp_path: Path) -> None:
    queue = Predictions(4, 60)
    first, second = (prediction_in(tmp_path / name) for name in "ab")
    queue.add(first)
    queue.add(second)
    queue.delete(first)
    assert (first.status, first.folder.exists()) == (CANCELLED, False)
    assert queue.take() is second
    queue.delete(second)
    queue.end(second, DONE, 1.0)
    assert second.status == CANCELLED


def test_what_is_over_for_long_enough_goes(tmp_path: Path) -> None:
    queue = Predictions(MOST_KEPT + 5, 60)
    over = [prediction_in(tmp_path / f"{number}") for number in range(3)]
    for prediction in over:
        queue.add(prediction)
        queue.take()
        queue.end(prediction, DONE, 1.0)
    running = prediction_in(tmp_path / "running")
    queue.add(running)
    queue.take()
    over[0].ended -= 61
    queue.expire()
    assert queue.listed() == [running, over[2], over[1]]
    assert not over[0].folder.exists()


def test_no_more_than_so_many_are_kept(tmp_path: Path) -> None:
    queue = Predictions(MOST_KEPT + 5, 60)
    for number in range(MOST_KEPT + 2):
        prediction = Prediction(tmp_path / f"{number}", Upload(tmp_path, 1), PredictSettings())
        queue.add(prediction)
        queue.take()
        queue.end(prediction, DONE, 1.0)
    queue.expire()
    assert len(queue.listed()) == MOST_KEPT


def test_who_waits_for_work_is_told_of_the_end() -> None:
    queue, taken = Predictions(4, 60), []
    waiting = threading.Thread(target=lambda: taken.append(queue.take()))
    waiting.start()
    queue.close()
    waiting.join(10)
    assert taken == [None]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("scan_anomaly.nii.gz", "application/gzip"),
        ("scan_slices/scan_slice_axial_001.png", "image/png"),
        ("scan_sc/0001.dcm", "application/dicom"),
        ("scan_mask.seg.nrrd", "application/octet-stream"),
    ],
)
def test_media_types(name: str, kind: str) -> None:
    assert media_type(name) == kind
