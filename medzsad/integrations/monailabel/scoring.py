"""Scores of scans, written to the datastore, and the next scan to label by them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from medzsad.detectors.organs import name_of
from medzsad.errors import MedzsadError
from medzsad.integrations.monailabel.answers import refusal, refusing, uncertainty
from medzsad.integrations.monailabel.detector_pool import DetectorPool
from medzsad.integrations.monailabel.dicom_store import modality_of
from medzsad.integrations.monailabel.models import OfferedModel
from medzsad.integrations.monailabel.parameters import InferParameters, texts_of
from medzsad.storage.text_files import whole_number

logger = logging.getLogger(__name__)
KEY = "medzsad"
"""Where the scores are in an image's info."""


class _Asked(NamedTuple):
    model: OfferedModel
    limit: int
    organ: str | None
    class_name: str | None


class AnomalyScoring(ScoringMethod):
    """Scores every scan that has no score of the same model, of the same version of it.

    An image's info gets, under :data:`KEY`: ``score`` (the volume score), ``uncertainty``
    (:func:`~medzsad.integrations.monailabel.answers.uncertainty`), ``candidates`` and ``volume_ml`` of the
    lesion candidates, ``threshold``, ``model`` and ``model_version``, and ``class_name`` where one was
    asked for; or ``error`` where the scan cannot be used.

    Args:
        find: gives a model by its name, ``""`` for the default; raises BadInput if there is none.
        pool: the detectors.
    """

    def __init__(self, find: Callable[[str], OfferedModel], pool: DetectorPool) -> None:
        super().__init__("Anomaly score and uncertainty of each scan")
        self._find, self._pool = find, pool

    def check(self, request: Mapping[str, Any]) -> _Asked:
        """Return what a request asks for.

        Raises:
            HTTPException: 422 on a parameter that cannot be used.
        """
        with refusing():
            model = self._find(str(request.get("model") or ""))
            return _Asked(model, _limit(request.get("limit")), *texts_of(request))

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Scores.

        Args:
            request: ``model``; ``limit``, at most so many scans (0 is all); ``force``, score anew; ``organ``
                and ``class_name``, what the scans show, for models whose texts name it.
            datastore: the scans.

        Returns:
            ``model``, and how many scans were ``scored``, ``skipped`` and ``failed``.

        Raises:
            HTTPException: 422 on a parameter that cannot be used, 503 if the model cannot be loaded.
        """
        model, limit, organ, class_name = self.check(request)
        parameters = InferParameters(organ=organ, class_name=class_name)
        with refusing():
            said = name_of(organ, class_name)
        counts = {"scored": 0, "skipped": 0, "failed": 0}
        images = sorted(datastore.list_images())
        for number, image in enumerate(images, start=1):
            if not request.get("force") and not _is_due(datastore, image, model, said):
                counts["skipped"] += 1
                continue
            if limit and counts["scored"] + counts["failed"] >= limit:
                break
            with refusing():
                # A model that cannot be loaded is no scan's fault.
                self._pool.detector(model, organ=organ, class_name=class_name)
            outcome = self._score(datastore, image, model, parameters)
            if said is not None:
                outcome["class_name"] = said
            counts["failed" if "error" in outcome else "scored"] += 1
            logger.info("scan %d of %d: %s", number, len(images), outcome.get("error", "scored"))
            datastore.refresh()  # labels may have come meanwhile, and the whole register is written back
            try:
                datastore.update_image_info(image, {KEY: outcome})
            except ImageNotFoundException:
                logger.warning(
                    "scan %d of %d: no longer there, or kept without a record", number, len(images)
                )
        return {"model": model.name, "model_version": model.version, **counts}

    def _score(
        self, datastore: Datastore, image: str, model: OfferedModel, parameters: InferParameters
    ) -> dict[str, Any]:
        outcome: dict[str, Any] = {"model": model.name, "model_version": model.version}
        path = ""
        try:
            path = datastore.get_image_uri(image)
            parameters = replace(parameters, modality=modality_of(datastore, image))
            prediction = self._pool.predict(model, Path(path), parameters)
        except Exception as error:  # whatever is wrong with one scan, the others are scored
            reason = str(error) if isinstance(error, MedzsadError) else f"{type(error).__name__}: {error}"
            reason = " ".join(reason.split())
            outcome["error"] = reason.replace(path, "the image") if path else reason
        else:
            lesions = prediction.lesions
            outcome |= {
                "score": round(prediction.score, 6),
                "uncertainty": round(uncertainty(prediction), 6),
                "threshold": round(prediction.threshold, 6),
                "candidates": len(lesions),
                "volume_ml": round(sum(lesion.volume_ml or 0.0 for lesion in lesions), 6),
            }
        return outcome | {"file": _stamp(datastore, image), "ts": int(time.time())}


def scores_of(info: dict[str, Any]) -> dict[str, Any]:
    """Return the scores in an image's info; empty if there are none."""
    scores = info.get(KEY)
    return scores if isinstance(scores, dict) else {}


def is_due(datastore: Datastore, model: OfferedModel) -> bool:
    """Whether a scan has no score of ``model``."""
    datastore.refresh()
    return any(_is_due(datastore, image, model) for image in datastore.list_images())


def _is_due(datastore: Datastore, image: str, model: OfferedModel, class_name: str | None = None) -> bool:
    scores = scores_of(datastore.get_image_info(image))
    if (scores.get("model"), scores.get("model_version")) != (model.name, model.version):
        return True
    if class_name is not None and scores.get("class_name") != class_name:
        return True
    return scores.get("file") != _stamp(datastore, image)


def _stamp(datastore: Datastore, image: str) -> list[int] | None:
    """Size and time of the image's file, as far as it is on this machine."""
    path = datastore.get_image_info(image).get("path")
    try:
        state = Path(path).stat()
    except (OSError, TypeError):
        return None
    return [state.st_size, state.st_mtime_ns]


def _limit(value: Any) -> int:
    if value in (None, ""):
        return 0
    return whole_number(value, "limit")


MOST_ANOMALOUS, MOST_UNCERTAIN = "most_anomalous", "most_uncertain"
HANDED_OUT_SECONDS = 3600
"""How long a scan that was handed out comes after those that were not: others label, too, and some skip."""


class HighestFirst(Strategy):
    """The scan without a final label whose score is the highest.

    Scans that have no score yet follow those that have one, and scans that could not be read come last. Asked
    again without a label in between, it gives the next one; after the last one it begins anew.

    Args:
        key: of the scores: ``"score"`` or ``"uncertainty"``.
        description: for people.
    """

    def __init__(self, key: str, description: str) -> None:
        super().__init__(description)
        self.key = key

    def info(self) -> dict[str, Any]:
        """Return what 3D Slicer shows."""
        return {**super().info(), "config": {"skip_seconds": HANDED_OUT_SECONDS}}

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Chooses.

        Args:
            request: ``strategy``, its name; ``skip_seconds`` instead of :data:`HANDED_OUT_SECONDS`.
            datastore: the scans.

        Returns:
            ``id``, ``score`` (None if it has none yet) and ``scored_with``; None if every scan has a label.

        Raises:
            HTTPException: 422 if ``skip_seconds`` is no number.
        """
        skip = _seconds(request.get("skip_seconds", HANDED_OUT_SECONDS))
        datastore.refresh()  # scores are written by another process
        images = [
            image
            for image in datastore.get_unlabeled_images()
            if not datastore.get_label_by_image_id(image, DefaultLabelTag.FINAL)
        ]
        if not images:
            return None
        now = time.time()

        def order(image: str) -> tuple[Any, ...]:
            info = datastore.get_image_info(image)
            scores = scores_of(info)
            value, unreadable = scores.get(self.key), "error" in scores
            given = info.get("strategy", {}).get(request.get("strategy"), {}).get("ts", 0)
            handed_out = given if now - given < skip else 0
            return unreadable, handed_out, value is None, -(value or 0.0), image

        chosen = min(images, key=order)
        scores = scores_of(datastore.get_image_info(chosen))
        return {"id": chosen, self.key: scores.get(self.key), "scored_with": scores.get("model")}


def _seconds(value: Any) -> float:
    try:
        seconds = float(value if value not in (None, "") else HANDED_OUT_SECONDS)
    except (TypeError, ValueError):
        seconds = -1.0
    if not seconds >= 0:
        raise refusal(f"skip_seconds {value!r} is not a number of seconds")
    return seconds
