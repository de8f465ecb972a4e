"""Which scan to label next."""

from __future__ import annotations

import time
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.strategy import Strategy

from medzsad.integrations.monailabel.refusals import refusal
from medzsad.integrations.monailabel.scoring import scores_of

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
