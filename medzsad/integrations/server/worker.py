"""The thread that predicts, one scan after another, with detectors that stay in memory."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.batch.predictor import OF_DETECTORS, Predictor
from medzsad.client.saving import NAME
from medzsad.errors import MedzsadError, explained
from medzsad.integrations.server.models import DetectorPool
from medzsad.integrations.server.predictions import (
    CANCELLED,
    DONE,
    FAILED,
    Prediction,
    Predictions,
    ResultFile,
    remove,
)
from medzsad.integrations.server.uploads import Upload
from medzsad.settings import DetectorSpec

if TYPE_CHECKING:
    from medzsad.batch.predictor import PredictSettings

log = logging.getLogger("medzsad.serve")


class Cancelled(Exception):  # noqa: N818 - no error
    """Raised in the middle of a prediction that nobody wants any more."""


class Worker(threading.Thread):
    """Predicts what waits, until the queue is closed.

    Args:
        predictions: the queue.
        detectors: in memory.
    """

    def __init__(self, predictions: Predictions, detectors: DetectorPool) -> None:
        super().__init__(name="medzsad-worker", daemon=True)
        self._predictions = predictions
        self._detectors = detectors

    def run(self) -> None:
        """Predict until the server stops."""
        while (prediction := self._predictions.take()) is not None:
            self._do(prediction)
            self._predictions.expire()

    def _do(self, prediction: Prediction) -> None:
        began, status = time.monotonic(), DONE
        try:
            self._predict(prediction)
        except Cancelled:
            status = CANCELLED
        except Exception as error:
            status = FAILED
            prediction.error, prediction.fault = reason_of(error, prediction.upload)
        self._predictions.end(prediction, status, time.monotonic() - began)
        remove(prediction.upload.folder)
        if prediction.status == CANCELLED:  # deleted meanwhile, and perhaps written to since
            remove(prediction.folder)

    def _predict(self, prediction: Prediction) -> None:
        settings, upload = prediction.settings, prediction.upload
        prediction.phase = "loading"
        detector = self._detectors.get(
            DetectorSpec(**{name: getattr(settings, name) for name in OF_DETECTORS})
        )
        predictor = Predictor(settings, detector)
        _go_on(prediction, "reading")
        scan = predictor.read(upload.source, NAME, series=upload.series)
        _go_on(prediction, "predicting")

        def watched(items: Iterable[int], total: int) -> Iterator[int]:
            prediction.done, prediction.total = 0, total
            for item in items:
                _go_on(prediction, "predicting")
                yield item
                prediction.done += 1

        result = predictor.predict(scan, progress=watched)
        _go_on(prediction, "writing")
        written = predictor.save(result, prediction.results)
        _go_on(prediction, "writing")
        found = [(kind, file) for kind, path in written.items() for file in _files_of(path)]
        prediction.files = {
            file.relative_to(prediction.results).as_posix(): ResultFile(kind, file, file.stat().st_size)
            for kind, file in sorted(found, key=lambda pair: pair[1])
        }
        prediction.score = round(result.score, 6)
        prediction.candidates = len(result.lesions)


def check_readable(upload: Upload, settings: PredictSettings) -> None:
    """Read a scan once before it is queued, so that a bad one is refused at once.

    Raises:
        BadInput: if it cannot be read.
    """
    Predictor(settings).read(upload.source, NAME, series=upload.series)


def reason_of(error: Exception, upload: Upload) -> tuple[str, str]:
    """Return why something failed, in a line for the client, and whose fault it is.

    A bug is logged with its place in the code, without its text, which may quote the scan.
    """
    known = explained(error)
    if isinstance(known, MedzsadError):
        return " ".join(upload.told(str(known)).split()), "input"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    log.error("internal error: %s%s", type(error).__name__, place)
    return " ".join(upload.told(f"internal error: {type(error).__name__}: {error}").split()), "internal"


def _go_on(prediction: Prediction, phase: str) -> None:
    if prediction.status == CANCELLED:
        raise Cancelled
    prediction.phase = phase


def _files_of(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
