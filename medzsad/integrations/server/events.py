"""Server-sent events of one prediction: its progress, then how it ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from medzsad.integrations.server.predictions import ENDED, Prediction

LOOK_S = 0.1  # between two looks at a prediction
ALIVE_S = 15.0  # after which a comment tells that the connection stands


async def events_of(prediction: Prediction) -> AsyncIterator[str]:
    """Yield the events of a prediction until it is over.

    Each look tells the present state, so that a slow client makes nothing pile up.
    """
    before: dict[str, Any] | None = None
    said = time.monotonic()
    while prediction.status not in ENDED:
        progress = prediction.progress()
        if progress != before:
            before, said = progress, time.monotonic()
            yield _event("progress", progress)
        elif time.monotonic() - said > ALIVE_S:
            said = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(LOOK_S)
    yield _event(prediction.status, prediction.document())


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
