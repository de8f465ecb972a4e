"""The server: MONAI Label's, with requests in threads, and its own errors as refusals.

``medzsad monailabel start`` gives this module to MONAI Label's launcher; the app also works without it.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.responses import FileResponse, JSONResponse
from monailabel.app import app
from monailabel.config import settings
from monailabel.endpoints.batch_infer import run as run_batch
from monailabel.endpoints.infer import ResultType, run_inference
from monailabel.endpoints.scoring import run as run_all_scorings
from monailabel.endpoints.scoring import run_method as run_scoring
from monailabel.endpoints.train import run as run_all_trainings
from monailabel.endpoints.train import run_model as run_training
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file

from medzsad.errors import MedzsadError
from medzsad.integrations.monailabel.answers import refusal
from medzsad.integrations.monailabel.app import merged
from medzsad.storage.text_files import parse_json_object

__all__ = ["app"]

_router = APIRouter()
_USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
_ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
_ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))


@_router.post("/infer/{model}", tags=["Infer"], summary="Run inference")
def infer(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: UploadFile = File(None),  # noqa: B008 - how FastAPI declares it
    label: UploadFile = File(None),  # noqa: B008
    output: ResultType | None = None,
    user: User = _USER,
):
    """MONAI Label's own endpoint, but in a thread.

    MONAI Label computes in the event loop: while one scan is predicted the server answers nobody, and
    requests never run side by side.
    """
    if not (image or file or session_id):
        raise refusal("no image is named: give image=NAME, a file or a session")
    given = parse_json_object(params, "params")
    if output is not ResultType.dicom_seg:
        return run_inference(background_tasks, model, image, session_id, params, file, label, output)
    request = {**given, "model": model, "image": image}
    path = app_instance().dicom_segmentation(request)
    background_tasks.add_task(remove_file, str(path))
    return FileResponse(path, media_type="application/dicom", filename=path.name)


# MONAI Label's own endpoints of background tasks, but what would fail in the task is refused at once.


@_router.post("/train/{model}", tags=["Train"], summary="Train a model")
def train(
    model: str,
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
    enqueue: bool = False,
    user: User = _ADMIN,
):
    """Train a model on the labels submitted so far."""
    app_instance().check_task("train", {"model": model, **(params or {})})
    return run_training(model, params, run_sync, enqueue)


@_router.post("/scoring/{method}", tags=["Scoring"], summary="Score scans")
def score(method: str, params: dict[str, Any] | None = None, run_sync: bool = False, user: User = _ANNOTATOR):
    """Score the scans that have no score of the model."""
    app_instance().check_task("scoring", {"method": method, **(params or {})})
    return run_scoring(method, params, run_sync)


@_router.post("/train/", include_in_schema=False)
def train_all(params: dict[str, Any] | None = None, run_sync: bool = False, user: User = _ADMIN):
    """Train all models that can be."""
    for name in app_instance().info()["trainers"]:
        app_instance().check_task("train", merged("model", name, params))
    return run_all_trainings(params, run_sync)


@_router.post("/scoring/", include_in_schema=False)
def score_all(params: dict[str, Any] | None = None, run_sync: bool = False, user: User = _ANNOTATOR):
    """Run all scoring methods."""
    for name in app_instance().info()["scoring"]:
        app_instance().check_task("scoring", merged("method", name, params))
    return run_all_scorings(params, run_sync)


@_router.post("/batch/infer/{model}", tags=["Infer"], summary="Predict many scans")
def batch_infer(
    model: str,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
    user: User = _ADMIN,
):
    """Predict scans of the datastore and store the labels, one at a time unless ``max_workers`` says more."""
    params = {"max_workers": 1, **(params or {})}
    app_instance().check_task("batch_infer", {"model": model, **params})
    return run_batch(model, images, params, run_sync)


_theirs = len(app.router.routes)
app.include_router(_router)
# The first route that fits is taken.
app.router.routes[:] = app.router.routes[_theirs:] + app.router.routes[:_theirs]


@app.exception_handler(MONAILabelException)
async def _monailabel_error(_: Request, error: MONAILabelException) -> JSONResponse:
    missing = isinstance(error, (ImageNotFoundException, LabelNotFoundException))
    status = 404 if missing else 400 if error.error is MONAILabelError.INVALID_INPUT else 500
    return JSONResponse({"detail": error.msg}, status)


@app.exception_handler(MedzsadError)
async def _medzsad_error(_: Request, error: MedzsadError) -> JSONResponse:
    answer = refusal(error)
    return JSONResponse({"detail": answer.detail}, answer.status_code)


@app.exception_handler(json.JSONDecodeError)
async def _no_json(_: Request, error: json.JSONDecodeError) -> JSONResponse:
    return JSONResponse({"detail": f"not valid JSON: {error}"}, 400)
