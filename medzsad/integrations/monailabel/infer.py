"""The ``infer`` and ``batch_infer`` tasks: scans in, labels and figures out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from medzsad.errors import BadInput
from medzsad.integrations.monailabel.answers import LABELS, figures, not_found, refusing, write_label
from medzsad.integrations.monailabel.detector_pool import DetectorPool
from medzsad.integrations.monailabel.models import OfferedModel
from medzsad.integrations.monailabel.parameters import InferParameters

logger = logging.getLogger(__name__)


class AnomalyInfer(InferTask):
    """Anomaly segmentation with one of the models.

    Not MONAI Label's transform chain: what is computed is :func:`medzsad.predict`, so that an answer equals
    ``medzsad predict`` bit for bit.

    Args:
        name: of the model.
        find: gives the model as of now, None if it is gone: an adapter may be trained while the server runs.
        title: of the model.
        pool: the detectors.
    """

    def __init__(
        self, name: str, find: Callable[[str], OfferedModel | None], title: str, pool: DetectorPool
    ) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=dict(LABELS),
            dimension=3,
            description=title,
            config=InferParameters.choices(),
        )
        self.name, self._find, self._pool = name, find, pool

    def is_valid(self) -> bool:
        """Return True: models that are not ready are not offered."""
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Predicts the scan ``request["image"]``, a path.

        Returns:
            The label's temporary file, and the figures.

        Raises:
            HTTPException: 422 on a parameter or a scan that cannot be used, 404 or 503 if the model is gone
                or cannot be loaded; one line says why.
        """
        image = request.get("image")
        shown = str(request.get("image_name") or "the image")
        with refusing(image, shown):
            if not isinstance(image, str):
                raise BadInput("the image must be a scan's name or file, not pixels")
            parameters = InferParameters.parse(request)
            model = self._find(self.name)
            if model is None:
                raise not_found(f"there is no model {self.name!r} any longer")
            prediction = self._pool.predict(model, Path(image), parameters)
            label = write_label(prediction, parameters)
        logger.info("%s: score %.3f, %d candidates", model.name, prediction.score, len(prediction.lesions))
        return str(label), figures(prediction, model)


class AnomalyBatchInfer(BatchInferTask):
    """MONAI Label's batch inference, but one bad scan does not end it: its reason stands for its label."""

    def __call__(
        self, request: dict[str, Any], datastore: Datastore, infer: Callable[..., dict[str, Any]]
    ) -> dict[str, Any]:
        """Predicts the images that the request names, and stores their labels."""

        def one(request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
            try:
                return infer(request, datastore)
            except HTTPException as error:
                logger.warning("a scan was left out: %s", error.detail)
                return {"error": error.detail}

        # The app's own settings choose the device. MONAI Label would deal scans out to all GPUs, and divides
        # by their number, which may be 0.
        return super().__call__({**request, "multi_gpu": False, "device": "cpu"}, datastore, one)
