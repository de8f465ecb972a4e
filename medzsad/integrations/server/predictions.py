"""The predictions that a server knows: which wait, which runs, what became of them. In memory alone."""

from __future__ import annotations

import math
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medzsad.batch.predictor import PredictSettings
from medzsad.errors import BadInput
from medzsad.integrations.server.uploads import Upload

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
MOST_KEPT = 1000  # predictions that are over
_FIRST_GUESS_S = 5.0  # that a prediction takes, before one was measured
_LONGEST_WAIT_S = 60
MEDIA_TYPES = {
    ".json": "application/json", ".png": "image/png", ".html": "text/html", ".dcm": "application/dicom",
    ".gz": "application/gzip",
}  # fmt: skip


class QueueFull(BadInput):
    """No place is free; ``retry_after`` says in how many seconds one may be."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server has enough to do; try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class ResultFile:
    """A file that a prediction wrote.

    Attributes:
        kind: as ``medzsad predict --json`` calls it, such as ``"anomaly"``.
        path: where it lies.
        size: in bytes.
    """

    kind: str
    path: Path
    size: int


@dataclass
class Prediction:
    """One scan on its way.

    Attributes:
        folder: private to it; holds the upload and the results.
        upload: what came.
        settings: how it is predicted.
        label: what the client calls it.
        id: 32 hexadecimal digits, not to be guessed.
        status: one of :data:`ENDED`, ``queued`` or ``running``.
        phase: what is done now.
        done, total: slices.
        score: of the volume; None before.
        candidates: how many lesion candidates are shown.
        error: why it failed, in a line.
        fault: ``"input"`` or ``"internal"``, whose fault that is.
        files: the results by their names.
        ended: when it was over, on the monotonic clock.
    """

    folder: Path
    upload: Upload
    settings: PredictSettings
    label: str | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    status: str = QUEUED
    phase: str = "waiting"
    done: int = 0
    total: int = 0
    score: float | None = None
    candidates: int | None = None
    error: str | None = None
    fault: str | None = None
    files: dict[str, ResultFile] = field(default_factory=dict)
    ended: float | None = None

    @property
    def results(self) -> Path:
        """The folder of its results."""
        return self.folder / "results"

    def progress(self) -> dict[str, Any]:
        """How far it is."""
        return {"done": self.done, "total": self.total, "phase": self.phase}

    def document(self) -> dict[str, Any]:
        """JSON-serialisable: what clients see."""
        return {
            "id": self.id,
            "status": self.status,
            "progress": self.progress(),
            "created": self.created,
            "label": self.label,
            "model": Path(self.settings.model).stem,
            "score": self.score,
            "candidates": self.candidates,
            "results": [
                {"name": name, "kind": file.kind, "media_type": media_type(name), "bytes": file.size}
                for name, file in self.files.items()
            ],
            "error": self.error,
            "fault": self.fault,
            "links": links(self.id),
        }


class Predictions:
    """All predictions of a server; for several threads.

    Args:
        places: predictions that may wait, uploads on their way included.
        keep_s: how long one is kept after it is over.
    """

    def __init__(self, places: int, keep_s: float) -> None:
        self._places = places
        self._keep_s = keep_s
        self._known: dict[str, Prediction] = {}
        self._waiting: deque[Prediction] = deque()
        self._arriving = 0
        self._changed = threading.Condition()
        self._closed = False
        self._mean_s = _FIRST_GUESS_S

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue while an upload is on its way.

        Raises:
            QueueFull: if none is free.
        """
        with self._changed:
            if len(self._waiting) + self._arriving >= self._places:
                wait_s = math.ceil(self._mean_s * max(1, len(self._waiting)) / 2)
                raise QueueFull(max(1, min(_LONGEST_WAIT_S, wait_s)))
            self._arriving += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving -= 1

    def add(self, prediction: Prediction) -> None:
        """Put a prediction at the end of the queue."""
        with self._changed:
            self._known[prediction.id] = prediction
            self._waiting.append(prediction)
            self._changed.notify()

    def take(self) -> Prediction | None:
        """Return the next prediction, now running, waiting for one; None when the server stops."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            prediction = self._waiting.popleft()
            prediction.status, prediction.phase = RUNNING, "starting"
            return prediction

    def end(self, prediction: Prediction, status: str, seconds: float) -> None:
        """Say that a prediction is over; one that was cancelled meanwhile stays so."""
        with self._changed:
            if prediction.status != CANCELLED:
                prediction.status, prediction.phase = status, status
                prediction.ended = time.monotonic()
                self._mean_s += (seconds - self._mean_s) / 4

    def get(self, identifier: str) -> Prediction | None:
        """Return the prediction of that id, if there is one."""
        with self._changed:
            return self._known.get(identifier)

    def listed(self) -> list[Prediction]:
        """Return all predictions, the newest first."""
        with self._changed:
            return list(reversed(self._known.values()))

    def waiting(self) -> int:
        """Return how many wait."""
        with self._changed:
            return len(self._waiting) + self._arriving

    def delete(self, prediction: Prediction) -> None:
        """Forget a prediction and remove its files; one that runs stops at its next slices."""
        with self._changed:
            self._known.pop(prediction.id, None)
            if prediction in self._waiting:
                self._waiting.remove(prediction)
            if prediction.status not in ENDED:
                prediction.status, prediction.phase = CANCELLED, CANCELLED
        remove(prediction.folder)

    def expire(self) -> None:
        """Delete what has been over for long enough."""
        with self._changed:
            over = sorted(
                (p for p in self._known.values() if p.ended is not None), key=lambda p: p.ended or 0.0
            )
            now = time.monotonic()
            old = [p for p in over if now - (p.ended or now) > self._keep_s]
            old += over[len(old) : max(len(old), len(over) - MOST_KEPT)]
        for prediction in old:
            self.delete(prediction)

    def close(self) -> None:
        """Stop: nothing is taken from the queue any more, and what runs is cancelled."""
        with self._changed:
            self._closed = True
            for prediction in self._known.values():
                if prediction.status not in ENDED:
                    prediction.status, prediction.phase = CANCELLED, CANCELLED
            self._changed.notify_all()


def links(identifier: str) -> dict[str, str]:
    """Return where a prediction's parts are, relative to the server."""
    here = f"/v1/predictions/{identifier}"
    return {
        "self": here,
        "events": f"{here}/events",
        "results": f"{here}/results/{{name}}",
        "zip": f"{here}/results.zip",
    }


def media_type(name: str) -> str:
    """Return the media type of a result's name."""
    return MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")


def remove(folder: Path) -> None:
    """Remove a folder, as far as it is there."""
    shutil.rmtree(folder, ignore_errors=True)
