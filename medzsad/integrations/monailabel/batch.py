"""Batch inference that one bad scan does not end, and that needs no GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

logger = logging.getLogger(__name__)


class AnomalyBatchInfer(BatchInferTask):
    """MONAI Label's batch inference; the label of a scan that cannot be used is its reason."""

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
