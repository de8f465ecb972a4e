"""The app that a MONAI Label server loads: models, scores, the next scan to label, and training."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import requests
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.random import Random

from medzsad import __version__
from medzsad.errors import BadInput
from medzsad.integrations.monailabel.answers import (
    LABELS,
    not_found,
    refusal,
    refusing,
    unreachable,
    write_dicom_seg,
)
from medzsad.integrations.monailabel.detector_pool import DetectorPool
from medzsad.integrations.monailabel.dicom_store import ScanStore, as_scan_store, modality_of
from medzsad.integrations.monailabel.infer import AnomalyBatchInfer, AnomalyInfer
from medzsad.integrations.monailabel.models import NAME, ModelList, OfferedModel, Versions, is_version_name
from medzsad.integrations.monailabel.parameters import AppConf, InferParameters, is_default, number_of
from medzsad.integrations.monailabel.scoring import (
    MOST_ANOMALOUS,
    MOST_UNCERTAIN,
    AnomalyScoring,
    HighestFirst,
    is_due,
)
from medzsad.integrations.monailabel.train import HeadclipTraining
from medzsad.limits import check_limit

logger = logging.getLogger(__name__)
SCORING = "anomaly"
"""Name of the scoring method."""


class MedzsadApp(MONAILabelApp):
    """See :mod:`medzsad.integrations.monailabel`.

    Args:
        app_dir: the app folder.
        studies: a folder of scans, or the address of a DICOMweb server.
        conf: see :class:`~medzsad.integrations.monailabel.parameters.AppConf`.

    Raises:
        BadInput, ModelNotReady: on settings that are impossible, or models that are not there.
    """

    _infers: dict[str, InferTask]

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str] | None = None) -> None:
        conf = dict(conf or {})
        self.settings = AppConf.parse(conf)
        self.versions = Versions(Path(app_dir))
        self.models = ModelList(self.settings.model_names, self.versions, also=self.settings.scoring_model)
        if self.settings.scoring_model and not is_version_name(self.settings.scoring_model):
            self.model(self.settings.scoring_model)
        self.pool = DetectorPool(
            device=self.settings.device,
            precision=self.settings.precision,
            backend=self.settings.backend,
            parallel=self.settings.parallel,
            keep=self.settings.keep,
        )
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="medzsad",
            description="Anomaly maps as pre-labels, without training on your data. Research use only.",
            version=__version__,
            labels=list(LABELS),
        )

    def model(self, name: str) -> OfferedModel:
        """Return the model called ``name``; ``""`` is the one that scans are scored with.

        That is the first one, as long as it is to be one that was not trained yet.

        Raises:
            BadInput: if there is none; the message lists the names.
        """
        models = self.models.current()
        chosen = self.settings.scoring_model
        name = name or (chosen if chosen in models else next(iter(models), ""))
        if name not in models:
            raise BadInput(f"there is no model {name!r}; use one of: {', '.join(models)}")
        return models[name]

    def init_infers(self) -> dict[str, InferTask]:
        """Return a task for each model."""
        return self._tasks({})

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """One: how anomalous scans are, and how uncertain that is."""
        return {SCORING: AnomalyScoring(self.model, self.pool)}

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the most anomalous scan first, the most uncertain first, and MONAI Label's random choice."""
        return {
            MOST_ANOMALOUS: HighestFirst("score", "The most anomalous scan without a label"),
            MOST_UNCERTAIN: HighestFirst("uncertainty", "The scan whose label depends most on the threshold"),
            "random": Random(),
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        """One: HeadCLIP."""
        return {NAME: HeadclipTraining(self.versions, self.models, self.settings)}

    def init_batch_infer(self) -> BatchInferTask:
        """See :class:`AnomalyBatchInfer`."""
        return AnomalyBatchInfer()

    def info(self) -> dict[str, Any]:
        """As the base class; what was trained meanwhile is in it."""
        self._infers = self._tasks(self._infers)
        return super().info()

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """As the base class.

        Raises:
            HTTPException: 404 on an unknown model or image, else see :class:`AnomalyInfer`.
        """
        self._infers = self._tasks(self._infers)
        name = request.get("model")
        if name not in self._infers:
            raise _no("model", name, self._infers)
        store = datastore or self.datastore()
        image = request.get("image")
        request = {**request, "image_name": "the image"}
        if isinstance(image, str) and not os.path.exists(image):
            self._require_image(store, image)
            known = modality_of(store, image)
            request["image_name"] = f"image {image}"
            if known is not None and is_default(request.get("modality")):
                request["modality"] = known
        return super().infer(request, store)

    def dicom_segmentation(self, request: dict[str, Any]) -> Path:
        """Return the label of a series on a DICOMweb server, as DICOM Segmentation in a temporary file.

        Args:
            request: as of :meth:`infer`.

        Raises:
            HTTPException: 404 on an unknown model or series, 422 where there is no DICOMweb server, else see
                :class:`AnomalyInfer`.
        """
        name, store, image = request.get("model"), self.datastore(), str(request.get("image") or "")
        model = self._find(str(name))
        if model is None:
            raise _no("model", name, self.models.current())
        if not isinstance(store, ScanStore):
            raise refusal("only series of a DICOMweb server can have a DICOM SEG")
        self._require_image(store, image)
        series = store.series_folder(image)
        with refusing(series, f"image {image}"):
            return write_dicom_seg(self.pool, model, series, InferParameters.parse(request))

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """As the base class, but the most anomalous scan where no strategy is named.

        Raises:
            HTTPException: 404 on an unknown strategy, 422 on a parameter that cannot be used.
        """
        name = request.get("strategy") or MOST_ANOMALOUS
        if name not in self._strategies:
            raise _no("strategy", name, self._strategies)
        return super().next_sample({**request, "strategy": name})

    def check_task(self, kind: str, request: Mapping[str, Any]) -> None:
        """Refuse a task that would fail, before it is started in the background.

        Args:
            kind: ``"train"``, ``"scoring"`` or ``"batch_infer"``.
            request: with ``model``, of scoring ``method``, and the task's parameters.

        Raises:
            HTTPException: 404 on an unknown model or method; 422 on one that cannot do it, on parameters that
                cannot be used, and for training without CLIP weights.
        """
        name, models = str(request.get("method" if kind == "scoring" else "model")), self.models.current()
        if kind == "batch_infer":
            if name not in models:
                raise _no("model", name, models)
            with refusing():
                workers = number_of(request, "max_workers", 0) or 1
                check_limit(workers, "MEDZSAD_MAX_WORKERS", f"max_workers {workers}", "threads")
                InferParameters.parse(request)
            return
        tasks = self._trainers if kind == "train" else self._scoring_methods
        if name in tasks:
            tasks[name].check(request)
        elif kind == "train" and name in models:
            raise refusal(f"{name} cannot be trained here; use {', '.join(tasks)}")
        else:
            what = "model to train" if kind == "train" else "scoring method"
            raise not_found(f"there is no {what} called {name!r}; use {', '.join(tasks)}")

    def async_training(self, model: Any, params: dict[str, Any] | None = None, enqueue: bool = False) -> Any:
        """As the base class.

        Raises:
            HTTPException: see :meth:`check_task`.
        """
        for name in [model] if isinstance(model, str) and model else model or self._trainers:
            self.check_task("train", merged("model", name, params))
        return super().async_training(model, params, enqueue)

    def async_scoring(self, method: str | None, params: dict[str, Any] | None = None) -> Any:
        """As the base class; nothing is started where every scan has its score already.

        Raises:
            HTTPException: see :meth:`check_task`.
        """
        if method is not None:
            self.check_task("scoring", merged("method", method, params))
        # Without NIfTI a DICOMweb store keeps no record of its images, where scores could be written.
        kept = settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI or type(self.datastore()) is not ScanStore
        if method is None and not params and not (kept and self._scoring_is_due()):
            return {}
        return super().async_scoring(method, params)

    def init_remote_datastore(self) -> Datastore:
        """As the base class; of a DICOMweb server only series that are scans count."""
        return as_scan_store(super().init_remote_datastore())

    def _local_request(self, url: str, params: Any, action: str) -> Any:
        try:
            return super()._local_request(url, params, action)
        except requests.RequestException:
            # From a background task, to a server that listens on another address or has ended.
            logger.warning("%s was not started: no server at 127.0.0.1", action)
            return None

    def _scoring_is_due(self) -> bool:
        return is_due(self.datastore(), self.model(""))

    def _tasks(self, former: dict[str, InferTask]) -> dict[str, InferTask]:
        """Return the tasks of the models as of now; a new dictionary, for others may read the former one."""
        tasks = {}
        for name, model in self.models.current().items():
            task = former.get(name)
            if task is None or task.description != model.title:
                task = AnomalyInfer(name, self._find, model.title, self.pool)
            tasks[name] = task
        return tasks

    def _find(self, name: str) -> OfferedModel | None:
        return self.models.current().get(name)

    def _require_image(self, store: Datastore, image: str) -> None:
        """Raise a refusal unless the datastore can give the image; a remote one fetches it now."""
        try:
            path = store.get_image_uri(image)
        except requests.RequestException as error:
            answer = getattr(error, "response", None)
            if answer is not None and answer.status_code in (400, 404):
                raise not_found(f"there is no image {image!r}") from None
            raise unreachable(f"the DICOMweb server does not answer ({type(error).__name__})") from None
        except (IndexError, KeyError):  # how MONAI Label's DICOMweb store says that there is no such series
            raise not_found(f"there is no image {image!r}") from None
        if not path or not Path(path).exists():
            raise not_found(f"there is no image {image!r}")


def _no(what: str, name: Any, known: Iterable[str]) -> HTTPException:
    return not_found(f"there is no {what} {name!r}; use one of: {', '.join(known)}")


def merged(key: str, name: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a task's request as MONAI Label puts it together.

    Parameters may also stand below the task's name.
    """
    params = params or {}
    own = params.get(name)
    return {key: name, **(own if isinstance(own, dict) else {}), **params}
