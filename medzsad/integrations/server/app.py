"""The routes of the server: what each request gets."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from medzsad import __version__
from medzsad.client import API
from medzsad.errors import MedzsadError
from medzsad.integrations.server.events import events_of
from medzsad.integrations.server.models import DetectorPool, offered_models
from medzsad.integrations.server.openapi import POST
from medzsad.integrations.server.predictions import (
    Prediction,
    Predictions,
    QueueFull,
    ResultFile,
    media_type,
    remove,
)
from medzsad.integrations.server.private_folder import PrivateFolder
from medzsad.integrations.server.receiving import TooSlow, drain, receive
from medzsad.integrations.server.security import RESULT_POLICY, Guard
from medzsad.integrations.server.settings import RequestOptions, ServerSettings
from medzsad.integrations.server.tickets import Tickets
from medzsad.integrations.server.uploads import TooLarge, Upload, is_disk_full
from medzsad.integrations.server.worker import Worker, check_readable, reason_of

PAGE = Path(__file__).with_name("page")
READERS = 2  # uploads that are read at once to see whether they are scans
_EXPIRE_S = 20.0
_SAME_TIME = (1980, 1, 1, 0, 0, 0)  # of files in a zip, so that equal results are equal zips
_STATUS = {TooLarge: 413, TooSlow: 408, QueueFull: 429}


def create_app(settings: ServerSettings, folder: PrivateFolder) -> FastAPI:
    """Return the application; its worker runs from startup to shutdown.

    Args:
        settings: of the server.
        folder: where uploads and results lie.

    Raises:
        MedzsadError: if the token file, a model or the folder of profiles cannot be used.
    """
    models = offered_models(settings.models)
    settings.profiles()
    predictions = Predictions(settings.queue, settings.keep_minutes * 60)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker = Worker(predictions, DetectorPool(settings.keep_models))
        worker.start()
        expiring = asyncio.create_task(_expire(predictions))
        try:
            yield
        finally:
            expiring.cancel()
            predictions.close()
            await run_in_threadpool(worker.join, 10.0)

    app = FastAPI(
        title="medzsad",
        version=__version__,
        summary="Zero-shot anomaly detection for medical scans. Research software, not a medical device.",
        lifespan=lifespan,
        docs_url=None,  # Swagger's page loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    tickets = Tickets()
    _Routes(settings, models, predictions, folder, tickets).add_to(app)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_exception_handler(MedzsadError, _refused)
    app.add_exception_handler(Exception, _broken)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(
        Guard,
        token=settings.token(),
        hosts=(settings.host, *settings.allow_hosts),
        origins=settings.cors_origins,
        tickets=tickets,
    )
    return app


class _Routes:
    """The answers, and what they share."""

    def __init__(
        self,
        settings: ServerSettings,
        models: dict[str, Any],
        predictions: Predictions,
        folder: PrivateFolder,
        tickets: Tickets,
    ) -> None:
        self._settings = settings
        self._models = models
        self._predictions = predictions
        self._folder = folder
        self._tickets = tickets
        self._reading = asyncio.Semaphore(READERS)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        one = "/v1/predictions/{identifier}"
        app.get("/v1", summary="Name, version and limits")(self.about)
        app.get("/v1/models", summary="The models to choose from")(self.models)
        app.post("/v1/predictions", status_code=202, summary="Predict a scan", openapi_extra=POST)(self.post)
        app.get("/v1/predictions", summary="All predictions, the newest first")(self.list)
        app.get(one, summary="How far a prediction is, and what it found")(self.get)
        app.get(f"{one}/events", summary="Its progress as server-sent events")(self.events)
        app.get(f"{one}/results.zip", summary="All result files in a zip")(self.zip)
        app.get(f"{one}/results/{{name:path}}", summary="One result file")(self.result)
        app.get(f"{one}/ticket", summary="A key to its results for where no header can be sent")(self.ticket)
        app.delete(one, status_code=204, summary="Cancel it, and delete all of it at once")(self.delete)

    async def about(self) -> dict[str, Any]:
        """Return who answers; a client compares ``api`` with its own number."""
        return {
            "name": "medzsad",
            "version": __version__,
            "api": API,
            "limits": self._settings.limits,
            "normals": list(self._settings.profiles()),
            "waiting": self._predictions.waiting(),
        }

    async def models(self) -> list[dict[str, Any]]:
        """Return the models, the default first."""
        return [model.document() for model in self._models.values()]

    async def post(self, request: Request) -> Response:
        """Take a scan and its options; it waits in the queue."""
        try:
            return await self._post(request)
        except MedzsadError as error:
            await drain(request)
            return _refusal(error)
        except ClientDisconnect:
            return Response(status_code=400)
        except OSError as error:
            detail = f"the server cannot store the upload ({error.strerror or type(error).__name__})"
            return JSONResponse({"detail": f"{detail}; try again later"}, 507)

    async def _post(self, request: Request) -> Response:
        settings = self._settings
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > settings.max_upload_mb * 1e6:
            raise TooLarge(
                f"the upload has more than {settings.max_upload_mb:g} MB, the limit of this server"
            )
        with self._predictions.place():
            folder = self._folder.folder(secrets.token_hex(8))
            kept = False
            try:
                upload = Upload(folder / "upload", settings.max_unpacked_mb * 1e6)
                upload.folder.mkdir(mode=0o700)
                values = await receive(request, upload, settings.max_upload_mb * 1e6)
                options = RequestOptions.from_dict(values, origin="options")
                asked = options.settings(settings, self._models, upload.roi)
                async with self._reading:
                    await run_in_threadpool(_examine, upload, asked)
                if await request.is_disconnected():
                    raise ClientDisconnect
                prediction = Prediction(folder, upload, asked, options.label)
                self._predictions.add(prediction)
                kept = True
            finally:
                if not kept:
                    await run_in_threadpool(remove, folder)  # of thousands of files it takes seconds
        document = prediction.document()
        answer = {name: document[name] for name in ("id", "status", "links")}
        return JSONResponse(answer, 202, {"Location": document["links"]["self"]})

    async def list(self) -> list[dict[str, Any]]:
        """Return what this server has in memory; after a restart there is nothing."""
        return [prediction.document() for prediction in self._predictions.listed()]

    async def get(self, identifier: str) -> dict[str, Any]:
        """Return one prediction."""
        return self._known(identifier).document()

    async def events(self, identifier: str) -> StreamingResponse:
        """Send ``progress``, then ``done``, ``failed`` or ``cancelled`` with the whole prediction."""
        return StreamingResponse(
            events_of(self._known(identifier)),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    async def result(self, identifier: str, name: str) -> FileResponse:
        """Return a file of those that the prediction lists."""
        file = self._known(identifier).files.get(name)
        if file is None or not file.path.is_file():
            raise HTTPException(404, "there is no such result; the prediction lists its own")
        kind = media_type(name)
        shown = kind in ("application/json", "image/png", "text/html")
        return FileResponse(
            file.path,
            media_type=kind,
            filename=Path(name).name,
            content_disposition_type="inline" if shown else "attachment",
            headers={"Content-Security-Policy": RESULT_POLICY},
        )

    async def zip(self, identifier: str) -> FileResponse:
        """Return all result files in one zip."""
        prediction = self._known(identifier)
        if not prediction.files:
            raise HTTPException(404, "there are no results yet")
        path = prediction.folder / f"{secrets.token_hex(8)}.zip"
        try:
            await run_in_threadpool(_pack, prediction.files, path)
        except FileNotFoundError:
            raise HTTPException(404, "the prediction has just been deleted") from None
        except OSError as error:
            path.unlink(missing_ok=True)
            why = error.strerror or type(error).__name__
            raise HTTPException(507, f"the server cannot pack the results ({why}); try again later") from None
        return FileResponse(
            path,
            media_type="application/zip",
            headers={"Content-Disposition": "attachment"},  # without a name: the page gives it the scan's
            background=BackgroundTask(path.unlink, missing_ok=True),
        )

    async def ticket(self, identifier: str) -> dict[str, str | None]:
        """Return a ticket: behind ``?ticket=`` it opens the results for ten minutes; null without a token."""
        known = self._known(identifier)
        return {"ticket": None if self._settings.token_file is None else self._tickets.issue(known.id)}

    async def delete(self, identifier: str) -> Response:
        """Cancel a prediction that waits or runs, and delete its upload and results at once."""
        await run_in_threadpool(self._predictions.delete, self._known(identifier))
        return Response(status_code=204)

    def _known(self, identifier: str) -> Prediction:
        prediction = self._predictions.get(identifier)
        if prediction is None:
            raise HTTPException(404, "there is no such prediction; it may have been deleted or be too old")
        return prediction


def _examine(upload: Upload, settings: Any) -> None:
    """Raise the reason, told in the client's names, why an upload is no scan that can be predicted.

    Raises:
        OSError: if the server's disk is full, which is not the upload's fault.
    """
    try:
        upload.find_scan(settings.series)
        check_readable(upload, settings)
    except Exception as error:
        if is_disk_full(error):
            raise
        text, fault = reason_of(error, upload)
        if fault == "internal":
            raise HTTPException(500, text) from None
        kind = type(error) if isinstance(error, TooLarge) else MedzsadError
        raise kind(text) from None


def _pack(files: dict[str, ResultFile], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, file in files.items():
            info = zipfile.ZipInfo(name, _SAME_TIME)
            info.file_size = file.size  # tells whether it is larger than plain zip can hold
            with archive.open(info, "w") as target, file.path.open("rb") as source:
                shutil.copyfileobj(source, target)


async def _expire(predictions: Predictions) -> None:
    while True:
        await asyncio.sleep(_EXPIRE_S)
        await run_in_threadpool(predictions.expire)


def _refusal(error: MedzsadError) -> JSONResponse:
    status = next((number for kind, number in _STATUS.items() if isinstance(error, kind)), 400)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, QueueFull) else None
    return JSONResponse({"detail": " ".join(str(error).split())}, status, headers)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    return _refusal(error if isinstance(error, MedzsadError) else MedzsadError(str(error)))


async def _broken(_: Request, error: Exception) -> JSONResponse:
    reason_of(error, Upload(Path("-"), 0))  # which logs it
    return JSONResponse({"detail": f"internal error: {type(error).__name__}"}, 500)
