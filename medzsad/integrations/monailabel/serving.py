"""The server: MONAI Label's, with requests in threads, and its own errors as refusals.

``medzsad monailabel start`` gives this module to MONAI Label's launcher; the app also works without it.
"""

from __future__ import annotations

import json

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.responses import FileResponse, JSONResponse
from monailabel.app import app
from monailabel.config import settings
from monailabel.endpoints.infer import ResultType, run_inference
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file

from medzsad.errors import MedzsadError
from medzsad.integrations.monailabel.refusals import refusal

__all__ = ["app"]

_router = APIRouter(prefix="/infer", tags=["Infer"])
_USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))


@_router.post("/{model}", summary="Run inference")
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
    if not isinstance(json.loads(params or "{}"), dict):
        raise refusal("params must be a JSON object")
    if output is not ResultType.dicom_seg:
        return run_inference(background_tasks, model, image, session_id, params, file, label, output)
    request = {**json.loads(params or "{}"), "model": model, "image": image}
    path = app_instance().dicom_segmentation(request)
    background_tasks.add_task(remove_file, str(path))
    return FileResponse(path, media_type="application/dicom", filename=path.name)


app.include_router(_router)
app.router.routes.insert(0, app.router.routes.pop())  # the first route that fits is taken


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
