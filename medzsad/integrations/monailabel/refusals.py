"""Errors as MONAI Label's server answers them: a status from 400 on, and one line that says why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastapi import HTTPException

from medzsad.errors import MedzsadError, ModelNotReady

NOT_FOUND, UNUSABLE, UNREACHABLE, UNAVAILABLE = 404, 422, 502, 503


def refusal(error: MedzsadError | str, *, path: str | Path | None = None, shown: str = "") -> HTTPException:
    """Return the answer to a request that cannot be served.

    Args:
        error: why; a model that is not ready is the server's fault (503), all else the request's (422).
        path: a file of the server that the reason may name, ...
        shown: ... and what the client knows it as: folders of the server are nobody's business.
    """
    status = UNAVAILABLE if isinstance(error, ModelNotReady) else UNUSABLE
    reason = " ".join(str(error).split())
    if path is not None:
        reason = reason.replace(str(path), shown or "the image")
    return HTTPException(status, reason.replace("`", ""))


def not_found(reason: str) -> HTTPException:
    """Return the answer to a request for something that does not exist."""
    return HTTPException(NOT_FOUND, reason)


def unreachable(reason: str) -> HTTPException:
    """Return the answer to a request that another server would be needed for."""
    return HTTPException(UNREACHABLE, reason)


@contextlib.contextmanager
def refusing(path: str | Path | None = None, shown: str = "") -> Iterator[None]:
    """Turn errors of ours into refusals; see :func:`refusal`."""
    try:
        yield
    except MedzsadError as error:
        raise refusal(error, path=path, shown=shown) from None
